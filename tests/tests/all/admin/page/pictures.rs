//! The pictures in `docs/images/`, of the real thing.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;

use cronvec_nouns::token::Role;
use flate2::read::ZlibDecoder;

use super::Page;
use super::much::busy;

/// Where they are wanted, or a place that nobody looks at.
pub(super) fn folder() -> PathBuf {
    std::env::var_os("CRONVEC_PICTURES").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}

#[tokio::test]
async fn pictures_of_the_page_are_made() {
    let Some(page) = Page::open(busy().await).await else {
        return;
    };
    let (browser, folder) = (&page.browser, folder());
    let top = "document.activeElement.blur(); scrollTo(0, 0)";
    browser.prefer("prefers-color-scheme", "light").await;
    page.sign_in(page.api.secret(Role::Admin)).await;
    browser.shows("#jobs", "PROCESSING").await;
    browser.resize(1120, 1060, false).await;
    browser.run(top, &[]).await;
    browser.picture(&folder.join("monitor-light.png")).await;
    browser.prefer("prefers-color-scheme", "dark").await;
    browser.picture(&folder.join("monitor-dark.png")).await;
    browser.resize(1000, 760, false).await;
    browser.prefer("prefers-color-scheme", "light").await;
    browser.choose("[name=status]", "FAILED").await;
    browser.click("#jobs-rows tr:first-child a").await;
    browser.shows("#job", "Timeline").await;
    browser.picture(&folder.join("monitor-job.png")).await;
    browser.press("\u{e00c}").await;
    browser.click("#clear").await;
    browser.resize(390, 1000, true).await;
    browser.run(top, &[]).await;
    browser.picture(&folder.join("monitor-phone.png")).await;
    page.browser.quit().await;
    for (name, size) in [
        ("light", (1120, 1060)),
        ("dark", (1120, 1060)),
        ("job", (1000, 760)),
        ("phone", (390, 1000)),
    ] {
        let picture = Picture::read(&std::fs::read(folder.join(format!("monitor-{name}.png"))).unwrap());
        assert_eq!((picture.width, picture.height), size, "{name}");
        assert!(!picture.is_blank(), "{name} shows next to nothing");
    }
}

/// Of a PNG file: its size, and its rows as they are packed in it.
struct Picture {
    width: usize,
    height: usize,
    rows: Vec<Vec<u8>>,
}

impl Picture {
    fn read(png: &[u8]) -> Self {
        let number = |bytes: &[u8]| usize::try_from(u32::from_be_bytes(bytes.try_into().unwrap())).unwrap();
        let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("a PNG file");
        let (mut width, mut height, mut packed) = (0, 0, Vec::new());
        while !rest.is_empty() {
            let (length, kind) = (number(&rest[..4]), &rest[4..8]);
            let data = &rest[8..8 + length];
            match kind {
                b"IHDR" => (width, height) = (number(&data[..4]), number(&data[4..8])),
                b"IDAT" => packed.extend_from_slice(data),
                _ => {}
            }
            rest = &rest[12 + length..];
        }
        let mut bytes = Vec::new();
        ZlibDecoder::new(packed.as_slice())
            .read_to_end(&mut bytes)
            .expect("its rows");
        let rows = bytes.chunks(bytes.len() / height).map(<[u8]>::to_vec).collect();
        Self { width, height, rows }
    }

    /// Whether nearly all of its rows are like others, as on an empty page.
    fn is_blank(&self) -> bool {
        self.rows.iter().collect::<HashSet<_>>().len() < self.height / 4
    }
}

#[test]
fn a_picture_of_the_page_is_told_from_a_blank_one() {
    let page = Picture::read(include_bytes!("../../../../../docs/images/monitor-light.png"));
    assert!(page.width > 300 && page.height > 300 && !page.is_blank());
    let blank = Picture {
        rows: page.rows.iter().map(|row| vec![0; row.len()]).collect(),
        ..page
    };
    assert!(blank.is_blank());
}
