//! The list of what `attach` takes over from a table, each with what an application does to it.

use cronvec_tests::system::PROJECT;

use super::{all_well, attached, columns, expressions, faults, let_go, live, mend};
use cronvec_store::sources::NewSource;

/// What `doctor` says afterwards.
#[derive(Clone, Copy)]
enum Told {
    /// All goes on as before.
    Nothing,
    /// A failure that says this, and a mend that works as it is printed.
    Mended(&'static str),
    /// A failure that says this, and a mend with a gap that a person has to fill.
    ForPeople(&'static str),
    /// The statement is refused by PostgreSQL, which names this.
    Refused(&'static str),
}
use Told::{ForPeople, Mended, Nothing, Refused};

struct Case {
    does: &'static str,
    told: Told,
    /// A write of the application's as it is now: row 1 is touched.
    touch: &'static str,
    /// Row 77 comes.
    add: &'static str,
}

const TOUCH: &str = "UPDATE shop.notes SET kind = 'other' WHERE id = 1";
const ADD: &str = "INSERT INTO shop.notes (id, title) VALUES (77, 'Late')";

const fn case(does: &'static str, told: Told) -> Case {
    Case {
        does,
        told,
        touch: TOUCH,
        add: ADD,
    }
}

impl Case {
    const fn adding(self, add: &'static str) -> Self {
        Self { add, ..self }
    }

    const fn touching(self, touch: &'static str) -> Self {
        Self { touch, ..self }
    }
}

async fn check(new: &NewSource<'_>, case: &Case) {
    let (system, source) = attached(new).await;
    let done = system.sql.batch_execute(case.does).await;
    if let Refused(said) = case.told {
        let error = done.unwrap_err();
        let server = error.as_db_error().unwrap();
        let words = format!("{} {}", server.message(), server.detail().unwrap_or_default());
        assert!(words.contains(said), "{}: {words}", case.does);
        assert_eq!(faults(&system).await, [], "{}", case.does);
    } else {
        done.unwrap_or_else(|error| panic!("{}: {error:?}", case.does));
    }
    // At once: writes pass, and no record goes.
    system.run_sql(case.touch).await;
    assert_eq!(live(&system, "1,2,3").await, 3, "{}", case.does);
    let all = faults(&system).await;
    match case.told {
        Nothing | Refused(_) => assert_eq!(all, [], "{}", case.does),
        Mended(said) | ForPeople(said) => {
            assert!(
                all.iter().any(|fault| fault.fails && fault.found.contains(said)),
                "{}: {all:?}",
                case.does
            );
        }
    }
    if let ForPeople(_) = case.told {
        assert!(
            all.iter().any(|fault| fault.mend.contains('…')),
            "{}: {all:?}",
            case.does
        );
        return let_go(&system, &source).await;
    }
    // One mend may be that of several faults.
    let mut mended = Vec::new();
    for fault in all {
        if !mended.contains(&fault.mend) {
            mend(&system, &fault.mend).await;
            mended.push(fault.mend);
        }
    }
    all_well(&system, case.does).await;
    system.run_sql(case.add).await;
    assert_eq!(
        live(&system, "77").await,
        1,
        "{}: row 77 is a record at once",
        case.does
    );
    assert_eq!(live(&system, "1,2,3").await, 3, "{}", case.does);
    system.vectorize().await;
    let source = system.store.source(PROJECT).await.unwrap();
    if let Some(column) = &source.embedding_column {
        let without = format!("SELECT count(*) - count({column}) FROM {}", source.table);
        let waiting = system
            .value("SELECT coalesce(jsonb_agg(q), '[]') FROM cronvec.quarantine q")
            .await;
        assert_eq!(system.count(&without).await, 0, "{}: {waiting}", case.does);
    }
    let_go(&system, &source).await;
}

#[tokio::test]
async fn columns_may_be_renamed_dropped_and_given_other_types() {
    for case in [
        case("ALTER TABLE shop.notes ALTER COLUMN title TYPE varchar(200)", Nothing),
        case("ALTER TABLE shop.notes ALTER COLUMN title TYPE text", Nothing),
        case("ALTER TABLE shop.notes ADD COLUMN more text DEFAULT 'x'", Nothing),
        case(
            "ALTER TABLE shop.notes ALTER COLUMN title TYPE int USING length(title)",
            Mended("title was varchar when the table was attached and is int4 now"),
        )
        .adding("INSERT INTO shop.notes (id, title, body) VALUES (77, 7, 'Late')"),
        case(
            "ALTER TABLE shop.notes DROP COLUMN body",
            Mended("column body of shop.notes, which --text uses, isn't there any more"),
        ),
        case(
            "ALTER TABLE shop.notes RENAME COLUMN title TO \"Headline\"",
            Mended("column title of shop.notes, which --text uses, is named Headline now"),
        )
        .adding("INSERT INTO shop.notes (id, \"Headline\") VALUES (77, 'Late')"),
        case(
            "ALTER TABLE shop.notes RENAME COLUMN v TO embedding",
            Mended("column v of shop.notes, which --embedding-column uses"),
        ),
        case(
            "ALTER TABLE shop.notes ALTER COLUMN v SET NOT NULL",
            Mended("v of shop.notes can't be emptied any more"),
        )
        .adding("INSERT INTO shop.notes SELECT 77, 'Late', NULL, NULL, NULL, v FROM shop.notes WHERE id = 1"),
        case(
            "ALTER TABLE shop.notes DROP COLUMN v",
            Mended("shop.notes has no column v any more"),
        ),
    ] {
        check(&columns(), &case).await;
    }
}

#[tokio::test]
async fn keys_may_be_renamed_widened_and_lose_what_makes_them_keys() {
    for case in [
        case("ALTER TABLE shop.notes ALTER COLUMN id TYPE bigint", Mended("id was int4 when the table was attached and is int8 now"))
            .adding("INSERT INTO shop.notes (id, title) VALUES (77, 'Late'), (3000000000, 'Far')"),
        case("ALTER TABLE shop.notes RENAME COLUMN id TO note_id", Mended("column id of shop.notes, which --id uses, is named note_id now"))
            .touching("UPDATE shop.notes SET kind = 'other' WHERE note_id = 1")
            .adding("INSERT INTO shop.notes (note_id, title) VALUES (77, 'Late')"),
        case("ALTER TABLE shop.notes DROP CONSTRAINT notes_pkey", Mended("two rows of shop.notes may have the same id now")),
        case(
            "ALTER TABLE shop.notes DROP CONSTRAINT notes_pkey; ALTER TABLE shop.notes ALTER COLUMN id DROP NOT NULL",
            Mended("id, by which rows of shop.notes are told apart, may be null now"),
        ),
        case(
            "ALTER TABLE shop.notes DROP COLUMN id; ALTER TABLE shop.notes ADD COLUMN uid int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            Mended("column id of shop.notes, which --id uses, isn't there any more"),
        )
        .touching("UPDATE shop.notes SET kind = 'other' WHERE uid = 1")
        .adding("INSERT INTO shop.notes (uid, title) OVERRIDING SYSTEM VALUE VALUES (77, 'Late')"),
    ] {
        check(&columns(), &case).await;
    }
}

#[tokio::test]
async fn what_an_expression_uses_may_change_or_says_who_depends_on_it() {
    for case in [
        case(
            "ALTER TYPE shop.mood ADD VALUE 'odd'; ALTER TYPE shop.mood RENAME TO temper",
            Nothing,
        ),
        case("ALTER FUNCTION shop.clean(text) RENAME TO cleaned", Nothing),
        case(
            "DROP FUNCTION shop.clean(text)",
            Refused("source_1_text(character varying,shop.mood) depends on"),
        ),
        case(
            "DROP TYPE shop.mood",
            Refused("source_1_text(character varying,shop.mood) depends on"),
        ),
        case(
            "CREATE FUNCTION public.shorter(t text) RETURNS text LANGUAGE sql RETURN left(t, 40);
             CREATE OR REPLACE FUNCTION shop.clean(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN RETURN lower(shorter(t)); END $$",
            Mended("shop.notes can't be read as it was attached: function shorter(text) does not exist"),
        ),
        case(
            "DROP FUNCTION shop.clean(text) CASCADE;
             CREATE FUNCTION shop.clean(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t)",
            Mended("function cronvec.source_1_text is missing"),
        ),
        // Attached again, nothing holds the type any more.
        case(
            "ALTER TABLE shop.notes ALTER COLUMN mood TYPE text",
            Mended("mood was shop.mood when the table was attached and is text now"),
        )
        .adding("INSERT INTO shop.notes (id, title) VALUES (77, 'Late'); DROP TYPE shop.mood"),
        case(
            "ALTER TABLE shop.notes RENAME COLUMN mood TO \"Mood\"; ALTER TABLE shop.notes RENAME COLUMN kind TO sort",
            Mended("column mood of shop.notes, which --text uses, is named Mood now"),
        )
        .touching("UPDATE shop.notes SET sort = 'other' WHERE id = 1"),
        case(
            "ALTER TABLE shop.notes DROP COLUMN kind",
            ForPeople("column kind of shop.notes, which --where uses"),
        )
        .touching("UPDATE shop.notes SET body = 'other' WHERE id = 1"),
        case(
            "DROP TYPE shop.mood CASCADE",
            ForPeople("column mood of shop.notes, which --text uses, isn't there any more"),
        ),
    ] {
        check(&expressions(), &case).await;
    }
}

#[tokio::test]
async fn a_table_may_be_swapped_or_dropped_and_made_again_and_triggers_may_be_lost() {
    let swap =
        "CREATE TABLE shop.fresh (LIKE shop.notes INCLUDING ALL); INSERT INTO shop.fresh SELECT * FROM shop.notes;
        ALTER TABLE shop.notes RENAME TO notes_old; ALTER TABLE shop.fresh RENAME TO notes";
    for case in [
        case(
            swap,
            Mended("shop.notes is another table now; the one that is attached is named shop.notes_old"),
        ),
        case(
            "CREATE TABLE shop.fresh (LIKE shop.notes INCLUDING ALL); INSERT INTO shop.fresh SELECT * FROM shop.notes;
             DROP TABLE shop.notes; ALTER TABLE shop.fresh RENAME TO notes",
            Mended("shop.notes was dropped and made again"),
        ),
        case(
            "ALTER TABLE shop.notes DISABLE TRIGGER USER",
            Mended("trigger cronvec_1_insert of shop.notes is disabled"),
        ),
        case(
            "DROP TRIGGER cronvec_1_delete ON shop.notes",
            Mended("shop.notes has lost its trigger for delete"),
        ),
        case(
            "DROP TRIGGER zz_cronvec_1_forget ON shop.notes",
            Mended("shop.notes has lost the trigger that empties"),
        ),
        case(
            "DROP FUNCTION cronvec.source_1_event CASCADE",
            Mended("function cronvec.source_1_event is missing"),
        ),
    ] {
        check(&columns(), &case).await;
    }
}

/// Of a table that is gone nothing is left to mend.
#[tokio::test]
async fn a_table_that_is_dropped_with_its_schema_can_be_let_go() {
    for gone in ["DROP TABLE shop.notes", "DROP SCHEMA shop CASCADE"] {
        let (system, source) = attached(&expressions()).await;
        system.run_sql(gone).await;
        let all = faults(&system).await;
        assert_eq!(all.len(), 1, "{gone}: {all:?}");
        assert!(all[0].fails && all[0].found == "shop.notes is gone", "{gone}: {all:?}");
        mend(&system, &format!("{} --yes", all[0].mend)).await;
        assert!(system.store.sources().await.unwrap().is_empty());
        assert_eq!(live(&system, "1,2,3").await, 3);
        drop(source);
    }
}

/// The statement passes in any case; where the name is followed, there is nothing to mend.
#[tokio::test]
async fn a_table_may_be_renamed_and_moved_to_another_schema() {
    for moved in [
        "ALTER TABLE shop.notes RENAME TO papers",
        "CREATE SCHEMA archive; ALTER TABLE shop.notes SET SCHEMA archive",
    ] {
        let (system, source) = attached(&columns()).await;
        system.run_sql(moved).await;
        let now = system.store.source(PROJECT).await.unwrap().table;
        system
            .run_sql(&format!(
                "UPDATE {now} SET kind = 'other' WHERE id = 1; INSERT INTO {now} (id, title) VALUES (77, 'Late')"
            ))
            .await;
        assert_eq!(live(&system, "1,2,3,77").await, 4, "{moved}");
        assert_eq!(faults(&system).await, [], "{moved}");
        all_well(&system, moved).await;
        assert_eq!(system.store.source(PROJECT).await.unwrap().attached_as, now, "{moved}");
        // Whoever has its former name is another, and none of ours.
        system
            .run_sql("CREATE TABLE shop.notes (id int PRIMARY KEY, title text); INSERT INTO shop.notes VALUES (88, 'another')")
            .await;
        all_well(&system, moved).await;
        assert_eq!(live(&system, "88").await, 0, "{moved}");
        let_go(&system, &source).await;
    }
}

#[tokio::test]
async fn a_partition_that_is_detached_keeps_no_trigger_for_long() {
    let (system, _) = attached(&NewSource {
        table: "shop.notes",
        text: "title, body",
        ..crate::attach::articles()
    })
    .await;
    let_go(&system, &system.store.source(PROJECT).await.unwrap()).await;
    system
        .run_sql(
            "CREATE TABLE shop.events (y int, id int, body text, PRIMARY KEY (y, id)) PARTITION BY LIST (y);
             CREATE TABLE shop.e24 PARTITION OF shop.events FOR VALUES IN (2024);
             CREATE TABLE shop.e25 PARTITION OF shop.events FOR VALUES IN (2025)",
        )
        .await;
    system.create_project("events").await;
    let project = system.store.project("events").await.unwrap();
    let new = NewSource {
        table: "shop.events",
        text: "body",
        ..crate::attach::articles()
    };
    let source = system
        .store
        .attach(&new, &project, &system.settings.embedding.new_space)
        .await
        .unwrap();
    system
        .run_sql("ALTER TABLE shop.events DETACH PARTITION shop.e24")
        .await;
    let all = system.store.source_faults(&source).await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        all[0].found,
        "shop.e24 isn't a part of shop.events any more, and still has its triggers"
    );
    mend(&system, &all[0].mend).await;
    assert_eq!(system.store.source_faults(&source).await.unwrap(), []);
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.e24'::regclass AND tgname ~ 'cronvec'")
            .await,
        0
    );
}
