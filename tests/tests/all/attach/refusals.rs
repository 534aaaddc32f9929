//! What can't be attached, and what is said of it.

use cronvec_store::sources::NewSource;
use cronvec_store::{self as store, Store};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};

use super::rights::Role;
use super::{articles, attach, create_articles};

async fn refused(system: &System, new: &NewSource<'_>) -> String {
    let error = attach(system, new).await.expect_err("it is refused").to_string();
    let left = "SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]'";
    assert_eq!(system.count(left).await, 0, "nothing is left behind: {error}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.sources").await, 0);
    error
}

#[tokio::test]
async fn what_cannot_be_attached_is_told_with_what_mends_it() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    system
        .run_sql(
            "ALTER TABLE articles ADD slug text, ADD at time NOT NULL DEFAULT now(), ADD narrow vector(3), ADD half halfvec(256),
                 ADD taken vector(256) NOT NULL DEFAULT array_fill(0, ARRAY[256])::vector;
             CREATE VIEW public.a_view AS SELECT * FROM articles;
             CREATE TABLE public.no_key (id int NOT NULL, t text);
             CREATE TABLE public.\"Mixed\" (id int PRIMARY KEY, \"Text\" text)",
        )
        .await;
    let columns = |id: &'static str| id.split(',').map(str::to_owned).collect::<Vec<_>>();
    let at = columns("at");
    let slug = columns("slug");
    let views = columns("views");
    let nothing = columns("nothing");
    let cases: [(NewSource<'_>, &[&str]); 17] = [
        (
            NewSource {
                table: "artikel",
                ..articles()
            },
            &["no table artikel"],
        ),
        (
            NewSource {
                table: "a_view",
                ..articles()
            },
            &["public.a_view is a view", "attach the table"],
        ),
        (
            NewSource {
                table: "cronvec.records",
                ..articles()
            },
            &["one of the system's own"],
        ),
        (
            NewSource {
                table: "no_key",
                text: "t",
                ..articles()
            },
            &["no primary key", "--id"],
        ),
        (
            NewSource {
                text: "titel",
                ..articles()
            },
            &["has no column titel", "title"],
        ),
        (
            NewSource {
                text: "title, nothing",
                ..articles()
            },
            &["has no column nothing"],
        ),
        (
            NewSource {
                key: &nothing,
                ..articles()
            },
            &["has no column nothing"],
        ),
        (
            NewSource {
                key: &slug,
                ..articles()
            },
            &["slug", "may be null", "ALTER COLUMN slug SET NOT NULL"],
        ),
        (
            NewSource {
                key: &views,
                ..articles()
            },
            &["the same views", "CREATE UNIQUE INDEX ON public.articles (views)"],
        ),
        (
            NewSource { key: &at, ..articles() },
            &["time without time zone", "must be an integer"],
        ),
        (
            NewSource {
                embedding_column: Some("vectors"),
                ..articles()
            },
            &["ADD COLUMN vectors vector(256)"],
        ),
        (
            NewSource {
                embedding_column: Some("narrow"),
                ..articles()
            },
            &[
                "is vector(3)",
                "256 dimensions",
                "ALTER COLUMN narrow TYPE vector(256) USING NULL",
            ],
        ),
        (
            NewSource {
                embedding_column: Some("half"),
                ..articles()
            },
            &["is halfvec(256)", "TYPE vector(256) USING half::vector(256)"],
        ),
        (
            NewSource {
                embedding_column: Some("title"),
                ..articles()
            },
            &["title", "is text", "it isn't empty", "ADD COLUMN title_256 vector(256)"],
        ),
        (
            NewSource {
                embedding_column: Some("taken"),
                forgets: true,
                ..articles()
            },
            &["can't be emptied", "DROP NOT NULL"],
        ),
        (
            NewSource {
                adopt: Some("minilm"),
                ..articles()
            },
            &["--adopt-existing needs --embedding-column"],
        ),
        (
            NewSource {
                adopt: Some("text-embedding-3-small"),
                embedding_column: Some("taken"),
                ..articles()
            },
            &["embeds with", "not with text-embedding-3-small", "EMBEDDING_MODEL"],
        ),
    ];
    for (new, said) in cases {
        let error = refused(&system, &new).await;
        for words in said {
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    attach(&system, &articles()).await.unwrap();
    let second = NewSource {
        table: "Mixed",
        text: "Text",
        ..articles()
    };
    let error = attach(&system, &second).await.unwrap_err().to_string();
    assert!(
        error.contains("has a table already") && error.contains("--project"),
        "{error}"
    );
}

#[tokio::test]
async fn only_one_expression_over_the_row_is_taken_whatever_it_says() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    system.run_sql("CREATE TABLE public.victims (id int)").await;
    let mut odd = Vec::new();
    for (text, said) in [
        ("title || ", "syntax error"),
        ("titel || 'x'", "column \"titel\" does not exist"),
        ("title); DROP TABLE victims; SELECT (1", "syntax error"),
        ("title; DROP TABLE victims", "several commands"),
        ("title); DROP TABLE victims; --", "syntax error"),
        ("title) SECURITY DEFINER --", "syntax error"),
        ("title $$; DROP TABLE victims; $$", "does not exist"),
        ("title /*", "unterminated"),
        ("title\n) UNION SELECT ('x'", "syntax error"),
        ("title, 'x'", "syntax error"),
        ("count(*)::text", "aggregate functions are not allowed"),
        ("(SELECT string_agg(id::text, '') FROM victims)", "reads victims"),
        ("now() - title", "operator does not exist"),
        ("", "syntax error"),
    ] {
        let error = refused(&system, &NewSource { text, ..articles() }).await;
        if !(error.contains(said) && error.contains("--text")) {
            odd.push(format!("{text}: {error}"));
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
    let filter = |filter| NewSource {
        filter: Some(filter),
        ..articles()
    };
    for (text, said) in [
        ("views", "boolean"),
        ("true); DELETE FROM victims; SELECT (true", "--where"),
        ("viewz > 1", "columns are: id, title"),
    ] {
        let error = refused(&system, &filter(text)).await;
        assert!(error.contains(said), "{text}: {error}");
    }
    let metadata = |metadata| NewSource {
        metadata: Some(metadata),
        ..articles()
    };
    for text in ["views + 1", "nothing", "{}"] {
        refused(&system, &metadata(text)).await;
    }
    assert_eq!(system.count("SELECT count(*) FROM victims").await, 0, "it is there");
}

#[tokio::test]
async fn a_table_in_somebodys_hands_is_given_up_and_nobody_queues_behind_us() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 2).await;
    let user = cronvec_tests::between::Transaction::begin(&system).await;
    user.run("UPDATE articles SET views = 1").await;
    let error = refused(&system, &articles()).await;
    assert!(
        error.contains("holds public.articles") && error.contains("try it again"),
        "{error}"
    );
    user.commit().await;
    attach(&system, &articles()).await.unwrap();
    assert_eq!(system.store.coverage(PROJECT).await.unwrap().total, 2);
}

#[tokio::test]
async fn what_stands_in_a_column_is_never_advised_away_and_numbers_of_the_width_are_kept() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    system
        .run_sql(
            "ALTER TABLE articles ADD doubles double precision[], ADD reals real[], ADD halves halfvec(256), ADD short real[],
                 ADD narrow vector(3), ADD halves_of_3 halfvec(3), ADD words text;
             UPDATE articles SET doubles = array_fill(id, ARRAY[256]), reals = array_fill(id, ARRAY[256]),
                 halves = array_fill(id, ARRAY[256])::halfvec, short = '{1,2,3}', narrow = '[1,2,3]', halves_of_3 = '[1,2,3]',
                 words = 'some' WHERE id = 2",
        )
        .await;
    let with = |column| NewSource {
        embedding_column: Some(column),
        ..articles()
    };
    for (column, said) in [
        ("narrow", "EMBEDDING_DIMENSIONS=3"),
        ("halves_of_3", "ADD COLUMN halves_of_3_256 vector(256)"),
        ("short", "vectors of 3 numbers"),
        ("words", "ADD COLUMN words_256 vector(256)"),
    ] {
        let error = refused(&system, &with(column)).await;
        assert!(error.contains(said) && !error.contains("NULL"), "{column}: {error}");
        assert!(error.contains("EMBEDDING_PROVIDER isn't set"), "{column}: {error}");
    }
    for column in ["doubles", "reals", "halves"] {
        let error = refused(&system, &with(column)).await;
        let (_, advice) = error.split_once("run: ").unwrap_or_else(|| panic!("{error}"));
        let (statement, kept) = advice.split_once(", which keeps").unwrap_or_else(|| panic!("{error}"));
        assert!(kept.contains("its vectors"), "{error}");
        system.run_sql(statement).await;
        let there = format!("SELECT count(*) FROM articles WHERE {column} = array_fill(id, ARRAY[256])::vector");
        assert_eq!(system.count(&there).await, 1, "{statement}");
    }
    attach(&system, &with("doubles")).await.unwrap();
}

#[tokio::test]
async fn a_role_is_told_to_become_a_tables_owner_unless_that_would_make_it_mighty() {
    let system = System::embedding_in_process().await;
    let (me, owner) = (Role::create(&system, "me").await, Role::create(&system, "owner").await);
    create_articles(&system, 1).await;
    let store = Store::new(store::Database::at(&me.url, 2).unwrap());
    let refused = async || store.table_name("public.articles").await.unwrap_err().to_string();
    let error = refused().await;
    assert!(
        error.ends_with(&format!(
            "ALTER TABLE public.articles OWNER TO ROLE, then GRANT ROLE TO {}",
            me.name
        )),
        "{error}"
    );
    system
        .run_sql(&format!("ALTER TABLE articles OWNER TO {}", owner.name))
        .await;
    let error = refused().await;
    assert!(
        error.contains(&format!("GRANT {} TO {}", owner.name, me.name)),
        "{error}"
    );
    owner.leave(&system).await;
    me.leave(&system).await;
}
