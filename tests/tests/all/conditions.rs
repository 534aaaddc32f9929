use std::cell::Cell;
use std::time::Duration;

use cronvec_tests::conditions::{eventually, within};

#[tokio::test]
async fn a_condition_is_asked_until_it_holds() {
    let asked = Cell::new(0);
    eventually("asked three times", || {
        asked.set(asked.get() + 1);
        let enough = asked.get() == 3;
        async move { enough }
    })
    .await;
    assert_eq!(asked.get(), 3);
}

#[tokio::test]
#[should_panic(expected = "in vain until pigs fly")]
async fn a_condition_that_never_holds_fails_the_test() {
    within(Duration::from_millis(50), "pigs fly", || async { None::<()> }).await;
}

#[tokio::test]
#[should_panic(expected = "in vain until the hung check answers")]
async fn a_check_that_hangs_fails_the_test() {
    within(
        Duration::from_millis(50),
        "the hung check answers",
        std::future::pending::<Option<()>>,
    )
    .await;
}
