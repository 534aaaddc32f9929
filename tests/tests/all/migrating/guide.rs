//! The guide's blocks. Each that is run has its name in a comment before it: `<!-- listings: attach -->`.

const GUIDE: &str = include_str!("../../../../docs/MIGRATING.md");

/// The text of a block, which is in this language.
pub(super) fn block(name: &str, language: &str) -> String {
    let marker = format!("<!-- {name} -->\n```{language}\n");
    let (_, behind) = GUIDE
        .split_once(&marker)
        .unwrap_or_else(|| panic!("the guide has no block '{name}' of {language}"));
    let (text, _) = behind.split_once("\n```").expect("an end");
    text.to_owned()
}

/// Statements of SQL, parted where a line ends with a semicolon, but inside of a function's body.
pub(super) fn statements(sql: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut in_body = false;
    for line in sql.lines() {
        in_body ^= line.matches("$$").count() % 2 == 1;
        let last = all.last_mut().expect("one");
        last.push_str(line);
        last.push('\n');
        if line.ends_with(';') && !in_body {
            all.push(String::new());
        }
    }
    all.retain(|statement| !statement.trim().is_empty());
    all
}

/// Commands of a console, each with what it printed.
pub(super) fn commands(console: &str) -> Vec<(String, String)> {
    let parts = console.strip_prefix("$ ").expect("a command").split("\n$ ");
    parts
        .map(|part| {
            let (command, printed) = part.split_once('\n').unwrap_or((part, ""));
            (command.to_owned(), printed.to_owned())
        })
        .collect()
}

#[test]
fn each_command_in_the_guide_is_run_by_a_test() {
    let tests = [
        include_str!("listings.rs"),
        include_str!("articles.rs"),
        include_str!("directory.rs"),
        include_str!("platform.rs"),
    ];
    let lines: Vec<&str> = GUIDE.lines().collect();
    let mut named = 0;
    for (before, line) in lines.iter().zip(&lines[1..]) {
        if !["```sh", "```console", "```http"].contains(line) && !before.starts_with("<!-- ") {
            continue;
        }
        let name = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let name = name.unwrap_or_else(|| panic!("the block behind '{before}' has no name"));
        assert!(
            tests.iter().any(|test| test.contains(&format!("\"{name}\""))),
            "no test runs '{name}'"
        );
        named += 1;
    }
    assert!(named > 30, "{named}");
}
