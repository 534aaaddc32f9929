//! The whole system on a database of its own: its store, its settings, its workers, as the functions wire them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_config::Settings;
use cronvec_nouns::space::ProviderKind;
use cronvec_nouns::token::{self, Role};
use cronvec_secrets::Secrets;
use cronvec_store::connect::DEFAULT_CONNECTIONS;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::tokens::NewToken;
use cronvec_store::{self as store, Store};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::database::Database;
use crate::provider;

/// The project that most tests need.
pub const PROJECT: &str = "articles";

pub struct System {
    pub database: Database,
    pub store: Arc<Store>,
    pub settings: Settings,
    /// A connection beside the system's own, for looking and for getting in the way.
    pub sql: Client,
}

impl System {
    /// With the model that is compiled in.
    pub async fn embedding_in_process() -> Self {
        Self::with(&[]).await
    }

    /// With a fake provider of OpenAI's shape.
    pub async fn embedding_with(provider: &provider::Provider, dimensions: u16) -> Self {
        Self::embedding_as(provider, dimensions, &[]).await
    }

    /// The same with more settings.
    pub async fn embedding_as(provider: &provider::Provider, dimensions: u16, variables: &[(&str, &str)]) -> Self {
        let (url, dimensions) = (provider.url(), dimensions.to_string());
        let mut all = vec![
            ("EMBEDDING_PROVIDER", "openai"),
            ("OPENAI_BASE_URL", &url),
            ("OPENAI_API_KEY", "sk-test-of-the-harness"),
            ("EMBEDDING_DIMENSIONS", &dimensions),
        ];
        all.extend(variables);
        Self::with(&all).await
    }

    /// With these settings and the defaults; the project [`PROJECT`] is there.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        Self::on(Database::fresh().await, variables).await
    }

    pub async fn on(database: Database, variables: &[(&str, &str)]) -> Self {
        let url = database.url().to_owned();
        Self::through(database, &url, variables).await
    }

    /// The system reaches its database by another address, such as a pooler's.
    pub async fn through(database: Database, url: &str, variables: &[(&str, &str)]) -> Self {
        let system = Self::bare(database, url, variables).await;
        system.create_project(PROJECT).await;
        system
    }

    /// Without a project, and perhaps without a schema.
    pub async fn bare(database: Database, url: &str, variables: &[(&str, &str)]) -> Self {
        let settings = settings(url, variables);
        let store = Arc::new(Store::new(
            store::Database::at(url, DEFAULT_CONNECTIONS).expect("an address"),
        ));
        let sql = database.client().await;
        // A test that waits for itself fails instead of hanging.
        sql.batch_execute("SET statement_timeout = '30s'")
            .await
            .expect("a setting");
        Self {
            database,
            store,
            settings,
            sql,
        }
    }

    pub async fn create_project(&self, name: &str) {
        let space = self
            .store
            .ensure_space(&self.settings.embedding.new_space)
            .await
            .expect("a space");
        self.store
            .ensure_project(name, space.id, self.settings.queue.lanes_per_project)
            .await
            .expect("a project");
    }

    /// A token of the API, as it is shown once.
    pub async fn token(&self, name: &str, role: Role, projects: Option<&[String]>) -> String {
        let secret = token::generate();
        let new = NewToken {
            name,
            role,
            projects,
            hash: token::hash(&secret),
            hint: &token::hint(&secret),
            expires_in_days: None,
        };
        self.store.create_token(&new).await.expect("a token");
        secret
    }

    /// Puts a record with SQL, as an application does in its own transaction.
    pub async fn put(&self, project: &str, id: &str, content: &str) {
        put(&self.sql, project, id, content).await;
    }

    /// Puts the records `r1`, `r2` and so on; the texts are `what` with the number behind it.
    pub async fn put_many(&self, project: &str, records: u32, what: &str) {
        // In pieces, none of which takes long.
        for first in (1..=records).step_by(5_000) {
            let last = records.min(first + 4_999);
            self.run_sql(&format!(
                "SELECT count(cronvec.put_record('{project}', 'r' || n, '{what} ' || n)) FROM generate_series({first}, {last}) AS n"
            ))
            .await;
        }
    }

    /// Enqueues an INGEST_DATA job of these records and gives its id.
    pub async fn enqueue(&self, project: &str, records: &[Value], options: EnqueueOptions) -> i64 {
        let records: Vec<Vec<u8>> = records.iter().map(|record| record.to_string().into_bytes()).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let job = NewJob {
            project,
            records: &records,
            options,
        };
        self.store.enqueue(job).await.expect("a job").job_id()
    }

    pub fn ingestion(&self) -> ingestion::Worker {
        ingestion::Worker::new(Arc::clone(&self.store), self.settings.clone(), Secrets::without_aws())
    }

    pub fn vectorization(&self) -> vectorization::Worker {
        vectorization::Worker::new(Arc::clone(&self.store), self.settings.clone(), Secrets::without_aws())
    }

    /// A worker of another instance: connections of its own, and another provider behind the same model.
    pub fn another_vectorization(&self, provider: &provider::Provider) -> vectorization::Worker {
        let url = self.database.url();
        let mut settings = self.settings.clone();
        let openai = settings.embedding.providers.get_mut(ProviderKind::OpenAi);
        openai.expect("it is asked over HTTP").base_url = provider.url();
        let store = Arc::new(Store::new(
            store::Database::at(url, DEFAULT_CONNECTIONS).expect("an address"),
        ));
        vectorization::Worker::new(store, settings, Secrets::without_aws())
    }

    pub fn cleanup(&self) -> cleanup::Worker {
        cleanup::Worker::new(Arc::clone(&self.store), self.settings.clone(), Secrets::without_aws())
    }

    /// One invocation of `ingestion` with a minute's time.
    pub async fn ingest(&self) -> ingestion::Report {
        self.ingestion()
            .run(CallOptions::default(), minute())
            .await
            .expect("a pass")
    }

    /// One invocation of `vectorization` with a minute's time.
    pub async fn vectorize(&self) -> vectorization::Report {
        self.vectorize_with(CallOptions::default(), minute()).await
    }

    /// One invocation of `vectorization` whose requests have so many inputs at most.
    pub async fn another_batch_size(&self, inputs: usize) -> vectorization::Report {
        let mut settings = self.settings.clone();
        settings.embedding.batch_size = inputs;
        let worker = vectorization::Worker::new(Arc::clone(&self.store), settings, Secrets::without_aws());
        worker.run(CallOptions::default(), minute()).await.expect("a pass")
    }

    pub async fn vectorize_with(&self, options: CallOptions, deadline: Instant) -> vectorization::Report {
        self.vectorization().run(options, deadline).await.expect("a pass")
    }

    /// A number that SQL gives.
    pub async fn count(&self, sql: &str) -> i64 {
        self.sql
            .query_typed(sql, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))[0]
            .get(0)
    }

    /// One value of any type, as JSON.
    pub async fn value(&self, sql: &str) -> Value {
        let rows = self
            .sql
            .query_typed(&format!("SELECT to_jsonb(v) FROM ({sql}) AS v (v)"), &[])
            .await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .first()
            .map_or(Value::Null, |row| row.get(0))
    }

    pub async fn run_sql(&self, sql: &str) {
        self.sql
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Lets every lease run out now, as if its worker had died a while ago.
    pub async fn expire_leases(&self) {
        self.run_sql(
            "UPDATE cronvec.job_queue SET lease_expires_at = now() - interval '1 second' WHERE status = 'PROCESSING'",
        )
        .await;
    }

    /// The invariant that everything is about: each record is embedded from its current text, with the right vector,
    /// each chunk once; nothing waits, nothing stands aside. `dimensions` as the fake provider's.
    pub async fn assert_all_embedded_by_fake(&self, project: &str, dimensions: usize) {
        let rows = self
            .sql
            .query_typed(
                "SELECT r.id, r.content, array_agg(v.content ORDER BY v.ordinal), array_agg(v.embedding::real[]::text ORDER BY v.ordinal),
                     bool_or(v.stale)
                 FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id
                 LEFT JOIN cronvec.embeddings v ON v.project = p.name AND v.record_id = r.id
                 WHERE p.name = $1 AND r.content IS NOT NULL GROUP BY r.id, r.content",
                &[(&project, tokio_postgres::types::Type::TEXT)],
            )
            .await
            .expect("the records");
        assert!(!rows.is_empty(), "there are records");
        for row in rows {
            let (id, content): (&str, &str) = (row.get(0), row.get(1));
            let chunks: Vec<Option<&str>> = row.get(2);
            let vectors: Vec<Option<&str>> = row.get(3);
            assert_eq!(row.get::<_, Option<bool>>(4), Some(false), "{id} has a current vector");
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            let together: String = chunks.iter().flatten().map(|chunk| squeezed(chunk)).collect();
            assert_eq!(
                together,
                squeezed(content),
                "the chunks of {id} are its current text, each once"
            );
            for (chunk, vector) in chunks.iter().flatten().zip(vectors.iter().flatten()) {
                let stored: Vec<f32> = vector
                    .trim_matches(['{', '}'])
                    .split(',')
                    .map(|n| n.parse().expect("a number"))
                    .collect();
                let expected = provider::vector(chunk, dimensions);
                let distance: f32 = stored.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
                assert!(
                    stored.len() == dimensions && distance < 1e-3,
                    "{id} has the vector of its own text"
                );
            }
        }
        assert_eq!(
            self.count("SELECT count(*) FROM cronvec.pending").await,
            0,
            "nothing waits"
        );
        assert_eq!(
            self.count("SELECT count(*) FROM cronvec.quarantined_records").await,
            0,
            "nothing stands aside"
        );
    }
}

/// The settings that these variables and the defaults make.
pub fn settings(url: &str, variables: &[(&str, &str)]) -> Settings {
    let mut environment: HashMap<&str, &str> = HashMap::from([("DATABASE_URL", url)]);
    environment.extend(variables.iter().copied());
    Settings::from_lookup(&|name| environment.get(name).map(|value| (*value).to_owned()))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

pub async fn put(sql: &Client, project: &str, id: &str, content: &str) {
    use tokio_postgres::types::Type;
    sql.query_typed(
        "SELECT cronvec.put_record($1, $2, $3)",
        &[(&project, Type::TEXT), (&id, Type::TEXT), (&content, Type::TEXT)],
    )
    .await
    .expect("a record");
}

/// A deadline a minute from now.
pub fn minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// `{"id","content"}` as a producer sends it.
pub fn record(id: &str, content: &str) -> Value {
    json!({ "id": id, "content": content })
}
