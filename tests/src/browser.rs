//! Owns a real Chromium without a window, driven by its own driver, where both are installed.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use thirtyfour::{By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement};

use crate::conditions::{eventually, eventually_some};
use crate::{http, skipped};

/// A browser with one window.
pub struct Browser {
    page: WebDriver,
    _driver: Driver,
}

/// The program that starts browsers, and those that it started.
struct Driver(Child);

/// They end with us, however we end: then standard input does. The driver alone would leave its browsers behind.
const SCRIPT: &str = r#""$1" --port="$2" & read -r _; kill -KILL 0"#;

impl Driver {
    fn start(program: &Path, port: u16) -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "chromedriver"])
            .arg(program)
            .arg(port.to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        Self(child)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Browser {
    /// None, said aloud, where it isn't installed.
    pub async fn start() -> Option<Self> {
        let (Some(driver), Some(chromium)) = (find("chromedriver"), find("chromium")) else {
            skipped("chromium and chromium-driver are not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = port.expect("a port").port();
        let driver = Driver::start(&driver, port);
        let address = format!("http://127.0.0.1:{port}");
        // The driver's client needs the provider of TLS that ours chooses.
        let client = http::client();
        eventually("the driver answers", || async {
            client.get(format!("{address}/status")).send().await.is_ok()
        })
        .await;
        let mut wanted = DesiredCapabilities::chrome();
        wanted
            .set_binary(chromium.to_str().expect("a path"))
            .expect("a capability");
        for argument in [
            "--headless=new",
            // Containers and root have no sandbox; no page of others is opened.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--force-color-profile=srgb",
            "--hide-scrollbars",
            "--lang=en",
            "--window-size=1280,900",
        ] {
            wanted.add_arg(argument).expect("a capability");
        }
        for log in ["browser", "performance"] {
            wanted
                .set_logging_prefs(log, LoggingPrefsLogLevel::All)
                .expect("a capability");
        }
        let page = WebDriver::new(address, wanted).await.expect("a browser");
        Some(Self { page, _driver: driver })
    }

    pub async fn open(&self, url: &str) {
        self.page.goto(url).await.expect("a page");
    }

    /// What a script gives.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        let outcome = self.page.execute(script, arguments.to_vec()).await;
        outcome
            .unwrap_or_else(|error| panic!("{script}: {error}"))
            .json()
            .clone()
    }

    /// The same of one that calls its last argument when it is done.
    pub async fn run_async(&self, script: &str) -> Value {
        let outcome = self.page.execute_async(script, Vec::new()).await;
        outcome.unwrap_or_else(|error| panic!("{error}")).json().clone()
    }

    /// All that can be read in elements of this selector.
    pub async fn text(&self, css: &str) -> String {
        let script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText).join('\\n')";
        let text = self.run(script, &[json!(css)]).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until this can be read there.
    pub async fn shows(&self, css: &str, text: &str) {
        eventually(&format!("{css} shows '{text}'"), || async {
            self.text(css).await.contains(text)
        })
        .await;
    }

    /// How many elements of this selector can be seen.
    pub async fn count(&self, css: &str) -> u64 {
        let script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length";
        self.run(script, &[json!(css)]).await.as_u64().expect("a number")
    }

    async fn find(&self, css: &str) -> WebElement {
        eventually_some(&format!("{css} is there"), || async {
            self.page.find(By::Css(css)).await.ok()
        })
        .await
    }

    /// Clicks as a person does: what is covered or away can't be clicked. A list may have been drawn anew meanwhile.
    pub async fn click(&self, css: &str) {
        eventually(&format!("{css} is clicked"), || async {
            match self.page.find(By::Css(css)).await {
                Ok(element) => element.click().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    pub async fn write(&self, css: &str, text: &str) {
        self.find(css).await.send_keys(text).await.expect("a field");
    }

    /// Presses keys wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let keys = self.page.action_chain().send_keys(keys);
        keys.perform().await.expect("keys");
    }

    pub async fn choose(&self, css: &str, value: &str) {
        let script = "const field = document.querySelector(arguments[0]); field.value = arguments[1];
            field.dispatchEvent(new Event('change', {bubbles: true}))";
        self.run(script, &[json!(css), json!(value)]).await;
    }

    pub async fn reload(&self) {
        self.page.refresh().await.expect("a page");
    }

    /// A screen of this size.
    pub async fn resize(&self, width: u32, height: u32, is_phone: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        let outcome = self
            .page
            .cdp()
            .send_raw("Emulation.setDeviceMetricsOverride", size)
            .await;
        outcome.expect("a size");
    }

    /// What the system says of light and dark, of motion and so on.
    pub async fn prefer(&self, feature: &str, value: &str) {
        let features = json!({"features": [{"name": feature, "value": value}]});
        let outcome = self.page.cdp().send_raw("Emulation.setEmulatedMedia", features).await;
        outcome.expect("a preference");
    }

    pub async fn picture(&self, path: &Path) {
        self.page.screenshot(path).await.expect("a picture");
    }

    /// The errors in the console since it was last looked at, but for these.
    pub async fn errors_but(&self, expected: &str) -> Vec<String> {
        let entries = self.page.get_log("browser").await.expect("a log");
        entries
            .into_iter()
            .filter(|entry| entry.level == "SEVERE" || entry.level == "WARNING")
            .map(|entry| entry.message)
            .filter(|message| expected.is_empty() || !message.contains(expected))
            .collect()
    }

    /// The addresses that were asked for since it was last looked at.
    pub async fn requested(&self) -> Vec<String> {
        let entries = self.page.get_log("performance").await.expect("a log");
        entries
            .iter()
            .filter_map(|entry| {
                let event: Value = serde_json::from_str(&entry.message).ok()?;
                let event = &event["message"];
                let is_request = event["method"] == "Network.requestWillBeSent";
                is_request.then(|| {
                    event["params"]["request"]["url"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                })
            })
            .collect()
    }

    /// Ends it, and waits until it has ended.
    pub async fn quit(self) {
        self.page.quit().await.expect("an end");
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}
