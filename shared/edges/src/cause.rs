//! Owns how an error and its causes become one line. Refuses to judge them.

use std::error::Error;

/// An error and its causes in one line. A cause that the line ends in already isn't said again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        cause: Option<Box<Link>>,
    }

    fn link(text: &'static str, cause: Option<Link>) -> Link {
        Link {
            text,
            cause: cause.map(Box::new),
        }
    }

    #[test]
    fn causes_follow_in_order_and_none_is_said_twice() {
        let error = link(
            "no vectors",
            Some(link("no answer: refused", Some(link("refused", None)))),
        );
        assert_eq!(chain(&error), "no vectors: no answer: refused");
    }
}
