//! A dump of our schema alone, restored beside the table in another database: everything has other numbers there.

use cronvec_tests::database::{Database, connect};
use cronvec_tests::system::{PROJECT, System};
use tokio::process::Command;

use super::{TABLE, all_well, attached, columns, faults, live, mend};

/// `pg_dump -n cronvec` as statements; none where the server comes without the program.
async fn dump(system: &System) -> Option<String> {
    let folder = system
        .value("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .await;
    let output = Command::new(format!("{}/pg_dump", folder.as_str().unwrap()))
        .args(["--schema", "cronvec", "--inserts", system.database.url()])
        .output()
        .await
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // What is for psql.
    Some(
        text.lines()
            .filter(|line| !line.starts_with('\\'))
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

#[tokio::test]
async fn our_schema_restored_beside_the_table_lacks_its_triggers_and_doctor_brings_them_back() {
    let (system, _) = attached(&columns()).await;
    let Some(dump) = dump(&system).await else {
        return cronvec_tests::skipped("there is no pg_dump");
    };
    let database = Database::empty().await;
    let client = connect(database.url()).await;
    // Numbers of types, tables and columns are others.
    let before = "CREATE TYPE public.other AS ENUM ('x'); CREATE EXTENSION vector SCHEMA public";
    client.batch_execute(&format!("{before}; {TABLE}")).await.unwrap();
    client.batch_execute(&dump).await.unwrap();
    drop(client);
    let url = database.url().to_owned();
    let system = System::bare(database, &url, &[]).await;
    system.store.check_ready().await.unwrap();

    system
        .run_sql("INSERT INTO shop.notes (id, title) VALUES (76, 'Not noticed')")
        .await;
    assert_eq!(live(&system, "1,2,3").await, 3);
    let all = faults(&system).await;
    let lost = all
        .iter()
        .filter(|fault| fault.fails && fault.found.contains("has lost"));
    assert_eq!((all.len(), lost.count()), (5, 5), "{all:?}");
    for fault in all {
        mend(&system, &fault.mend).await;
    }
    all_well(&system, "restored").await;
    system
        .run_sql("INSERT INTO shop.notes (id, title) VALUES (77, 'Late')")
        .await;
    assert_eq!(live(&system, "76,77").await, 2);
    system.vectorize().await;
    assert_eq!(system.store.source(PROJECT).await.unwrap().table, "shop.notes");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 5);
}
