use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

/// As the estimate for providers without a tokenizer on board.
fn third_of_bytes(text: &str) -> usize {
    text.len().div_ceil(3)
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Falls when the text grows, as WordPiece does with a word beyond its limit.
fn falls_for_long_words(text: &str) -> usize {
    text.split_whitespace()
        .map(|word| {
            if word.chars().count() > 100 {
                1
            } else {
                word.len().div_ceil(2)
            }
        })
        .sum()
}

fn without_space(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn check(text: &str, rules: ChunkRules, count: &dyn Fn(&str) -> usize) {
    let chunks = split(text, rules, count);
    let again = split(text, rules, count);
    assert_eq!(chunks, again, "the same text is cut the same way");
    for chunk in &chunks {
        assert!(!chunk.trim().is_empty(), "no chunk is blank");
        assert_eq!(chunk.trim(), *chunk, "chunks are trimmed");
        assert!(
            count(chunk) <= rules.tokens || chunk.chars().count() == 1,
            "{} tokens in a chunk of at most {}",
            count(chunk),
            rules.tokens
        );
    }
    if rules.overlap == 0 {
        assert_eq!(
            without_space(&chunks.concat()),
            without_space(text),
            "nothing is lost, doubled or reordered"
        );
    } else {
        let mut from = 0;
        for chunk in chunks {
            let at = from + text[from..].find(chunk).expect("chunks stand in the text's order");
            from = text.ceil_char_boundary(at + 1);
        }
    }
}

/// Text of every kind of trouble, from a seed.
fn trouble(seed: u64, pieces: usize) -> String {
    const PIECES: [&str; 18] = [
        "word",
        "supercalifragilistic",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\r\n\r\n",
        "\n\n\n",
        "A sentence ends. ",
        "漢字仮名交じり文",
        "。",
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "e\u{301}\u{327}",
        "\u{a0}",
        "\u{200b}",
        "निर्देश",
        "…—„",
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = String::new();
    for _ in 0..pieces {
        let piece = PIECES.choose(&mut rng).unwrap();
        for _ in 0..if rng.random_ratio(1, 20) { 200 } else { 1 } {
            text.push_str(piece);
        }
    }
    text
}

#[test]
fn a_text_that_fits_is_one_trimmed_chunk_and_a_blank_one_is_none() {
    let rules = ChunkRules { tokens: 8, overlap: 0 };
    assert_eq!(split(" \r\nfits\n", rules, &|_| panic!("bytes settle it")), ["fits"]);
    assert_eq!(split("this one fits, too", rules, &words), ["this one fits, too"]);
    for blank in ["", " ", "\r\n\t\u{a0}"] {
        assert!(split(blank, rules, &words).is_empty());
    }
}

#[test]
fn boundaries_are_those_a_reader_would_choose() {
    let rules = ChunkRules { tokens: 7, overlap: 0 };
    let text = "One two three. Four five six.\n\nSeven eight nine ten.\r\n\r\nEleven twelve.";
    assert_eq!(
        split(text, rules, &words),
        [
            "One two three. Four five six.",
            "Seven eight nine ten.\r\n\r\nEleven twelve."
        ]
    );
}

#[test]
fn overlap_repeats_the_end_of_the_chunk_before() {
    let rules = ChunkRules { tokens: 4, overlap: 2 };
    assert_eq!(
        split("a b c d e f g h", rules, &words),
        ["a b c d", "c d e f", "e f g h"]
    );
    let foolish = ChunkRules { tokens: 3, overlap: 9 };
    assert!(
        split("a b c d e f g h", foolish, &words).len() >= 3,
        "overlap is cut to less than a chunk"
    );
}

#[test]
fn overlap_holds_across_windows() {
    let text: String = (0..8_000).map(|n| format!("w{n} ")).collect();
    let rules = ChunkRules {
        tokens: 50,
        overlap: 10,
    };
    let chunks = split(&text, rules, &words);
    for pair in chunks.windows(2) {
        let first = pair[1].split_whitespace().next().unwrap();
        assert!(
            pair[0].split_whitespace().any(|word| word == first),
            "{first} is in both"
        );
    }
}

#[test]
fn long_text_without_a_space_is_cut() {
    let text = "x".repeat(44_000);
    let rules = ChunkRules {
        tokens: 512,
        overlap: 0,
    };
    check(&text, rules, &third_of_bytes);
    assert!(
        split(&text, rules, &third_of_bytes).len() <= 44_000 / (512 * 3) + 2,
        "and not into crumbs"
    );
    check(&"漢".repeat(10_000), rules, &third_of_bytes);
    check(&"👩‍👩‍👧‍👦".repeat(800), rules, &third_of_bytes);
    check(&format!("e{}", "\u{301}".repeat(4_000)), rules, &third_of_bytes);
    check(&text, rules, &falls_for_long_words);
}

#[test]
fn whatever_the_text_nothing_is_lost_and_no_chunk_is_too_long() {
    for seed in 0..4 {
        let text = trouble(seed, 50);
        for tokens in [1, 7, 64, 512] {
            check(&text, ChunkRules { tokens, overlap: 0 }, &third_of_bytes);
            check(
                &text,
                ChunkRules {
                    tokens,
                    overlap: tokens / 4,
                },
                &third_of_bytes,
            );
        }
        check(&text, ChunkRules { tokens: 40, overlap: 0 }, &falls_for_long_words);
    }
}

#[test]
fn texts_of_many_windows_keep_the_same_promises() {
    for seed in 100..102 {
        check(
            &trouble(seed, 4_000),
            ChunkRules {
                tokens: 256,
                overlap: 0,
            },
            &third_of_bytes,
        );
    }
}

#[test]
fn a_text_is_known_by_its_sha256() {
    assert_eq!(hash("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    assert_ne!(
        hash("é"),
        hash("e\u{301}"),
        "no normalisation: another text is another text"
    );
}

#[test]
fn smaller_chunks_repeat_as_large_a_part_of_each_other() {
    let rules = ChunkRules {
        tokens: 512,
        overlap: 128,
    };
    assert_eq!(
        rules.at_most(100),
        ChunkRules {
            tokens: 100,
            overlap: 25
        }
    );
    assert_eq!(rules.at_most(9_000), rules);
    assert_eq!(rules.at_most(0).tokens, 1);
}
