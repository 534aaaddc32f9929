//! Users who write: what they did is remembered, so that nothing that was acknowledged is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::{Database, Store, StoreError};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::Client;

use super::place::says_no;
use super::weather::{FAILING, REJECTED};
use super::{RECORDS, Storm, count};

/// By project and record: the texts that it may have, none for one that is gone. Several where a write was cut off.
pub type Expected = HashMap<(String, String), HashSet<Option<String>>>;

/// A record, and the text that it gets.
type Change = (u32, Option<String>);

/// How a write went.
enum Went {
    Done,
    /// Nobody knows.
    CutOff,
    Refused,
}

/// A user with records of their own, whom no other user touches.
pub struct Writer {
    storm: Arc<Storm>,
    project: &'static str,
    chance: StdRng,
    ids: Vec<u32>,
    texts: HashMap<u32, HashSet<Option<String>>>,
    client: Option<Client>,
    store: Store,
    version: u32,
}

impl Writer {
    /// Two a project.
    pub fn all(storm: &Arc<Storm>) -> Vec<Self> {
        let projects = ["plain", "lanes", "ads"].into_iter().zip(0..);
        projects
            .flat_map(|(project, nth)| [0, 1].map(|half| Self::new(storm, project, 10 * nth + half)))
            .collect()
    }

    fn new(storm: &Arc<Storm>, project: &'static str, number: u32) -> Self {
        // Some of them are there, some aren't yet.
        let ids: Vec<u32> = (0..RECORDS + 30).filter(|id| id % 2 == number % 10).collect();
        let there = |id: u32| {
            (id < RECORDS).then(|| match project {
                "ads" => format!("the first text of ad {id}"),
                _ => format!("the first text of r{id} in {project}"),
            })
        };
        Self {
            project,
            chance: storm.chance(300 + u64::from(number)),
            texts: ids.iter().map(|id| (*id, HashSet::from([there(*id)]))).collect(),
            ids,
            client: None,
            store: Store::new(Database::at(&storm.place.address("user"), 1).expect("an address")),
            version: 0,
            storm: Arc::clone(storm),
        }
    }

    /// Until the storm is over. What the records of an attached table say is the table's own affair.
    pub async fn write(mut self) -> Expected {
        while !self.storm.is_over() {
            match self.chance.random_range(0..10) {
                0 if self.project != "ads" => self.hand_in().await,
                0..=2 => self.keep_open().await,
                3 => self.there_and_back().await,
                4 => self.delete_and_bring_back().await,
                _ => {
                    let change = self.change();
                    self.at_once(vec![change]).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(self.chance.random_range(10..80))).await;
        }
        if self.project == "ads" {
            return Expected::new();
        }
        let project = self.project;
        let texts = self.texts.into_iter();
        texts
            .map(|(id, texts)| ((project.to_owned(), format!("r{id}")), texts))
            .collect()
    }

    /// A job with some records.
    async fn hand_in(&mut self) {
        let mut changes: Vec<Change> = self.some(20).into_iter().map(|id| (id, Some(self.text(id)))).collect();
        changes.sort_by_key(|(id, _)| *id);
        let records: Vec<Vec<u8>> = changes
            .iter()
            .map(|(id, text)| {
                serde_json::json!({"id": format!("r{id}"), "content": text})
                    .to_string()
                    .into_bytes()
            })
            .collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let job = NewJob {
            project: self.project,
            records: &records,
            options: EnqueueOptions::default(),
        };
        let went = match self.store.enqueue(job).await {
            Ok(_) => Went::Done,
            Err(StoreError::Database(error)) if says_no(&error) => {
                self.storm.fault(format!("a job was refused: {error:?}"));
                Went::Refused
            }
            Err(_) => Went::CutOff,
        };
        self.remember(changes, &went);
    }

    /// A transaction that is left open for a while, and mostly committed.
    async fn keep_open(&mut self) {
        let mut ids = self.some(4);
        ids.sort_unstable();
        let changes: Vec<Change> = ids.into_iter().map(|id| (id, self.new_text(id))).collect();
        let open = Duration::from_millis(self.chance.random_range(100..300));
        let commits = self.chance.random_bool(0.85);
        let sql = format!("BEGIN; {}", self.statements(&changes));
        let client = self.client().await;
        if !matches!(self.run_by(client, &sql).await, Went::Done) {
            // It was never committed.
            return;
        }
        tokio::time::sleep(open).await;
        // By the connection that began it, or by none.
        let Some(client) = self.client.take() else { return };
        if commits {
            let went = self.run_by(client, "COMMIT").await;
            self.remember(changes, &went);
        } else {
            self.run_by(client, "ROLLBACK").await;
        }
    }

    /// Another text, and at once the one before.
    async fn there_and_back(&mut self) {
        let Some(id) = self.ids.choose(&mut self.chance).copied() else {
            return;
        };
        let before = self.texts[&id].iter().next().cloned().flatten();
        let (there, back) = (self.text(id), before.unwrap_or_else(|| self.text(id)));
        self.at_once(vec![(id, Some(there))]).await;
        if self.chance.random_bool(0.5) {
            tokio::time::sleep(Duration::from_millis(self.chance.random_range(1..150))).await;
        }
        self.at_once(vec![(id, Some(back))]).await;
    }

    /// Gone and there again with the same text, in one transaction or in two.
    async fn delete_and_bring_back(&mut self) {
        let Some(id) = self.ids.choose(&mut self.chance).copied() else {
            return;
        };
        let before = self.texts[&id].iter().next().cloned().flatten();
        let back = before.unwrap_or_else(|| self.text(id));
        let (away, again) = ((id, None), (id, Some(back)));
        if self.chance.random_bool(0.5) {
            self.at_once(vec![away, again]).await;
        } else {
            self.at_once(vec![away]).await;
            self.at_once(vec![again]).await;
        }
    }

    async fn at_once(&mut self, changes: Vec<Change>) {
        let sql = match changes.len() {
            1 => self.statements(&changes),
            _ => format!("BEGIN; {}; COMMIT", self.statements(&changes)),
        };
        let went = self.run(&sql).await;
        self.remember(changes, &went);
    }

    async fn client(&mut self) -> Client {
        match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.storm.place.connect("user").await,
        }
    }

    async fn run(&mut self, sql: &str) -> Went {
        let client = self.client().await;
        self.run_by(client, sql).await
    }

    /// The connection is kept if it is in order.
    async fn run_by(&mut self, client: Client, sql: &str) -> Went {
        match client.batch_execute(sql).await {
            Ok(()) => {
                self.client = Some(client);
                Went::Done
            }
            Err(error) if says_no(&error) => {
                self.storm
                    .fault(format!("a user's write was refused: {error:?}: {sql}"));
                Went::Refused
            }
            Err(_) => {
                count(&self.storm.counts.broken_writes);
                Went::CutOff
            }
        }
    }

    fn remember(&mut self, changes: Vec<Change>, went: &Went) {
        count(&self.storm.counts.writes);
        for (id, text) in changes {
            let texts = self.texts.entry(id).or_default();
            match went {
                Went::Done => *texts = HashSet::from([text]),
                Went::CutOff => drop(texts.insert(text)),
                Went::Refused => {}
            }
        }
    }

    fn statements(&self, changes: &[Change]) -> String {
        let project = self.project;
        let each = changes.iter().map(|(id, text)| match (project, text) {
            ("ads", Some(text)) => {
                format!(
                    "INSERT INTO public.ads VALUES ({id}, '{text}') ON CONFLICT (id) DO UPDATE SET body = excluded.body"
                )
            }
            ("ads", None) => format!("DELETE FROM public.ads WHERE id = {id}"),
            (_, Some(text)) => format!("SELECT cronvec.put_record('{project}', 'r{id}', '{text}')"),
            (_, None) => format!("SELECT cronvec.delete_record('{project}', 'r{id}')"),
        });
        each.collect::<Vec<_>>().join("; ")
    }

    fn some(&mut self, most: usize) -> Vec<u32> {
        let many = self.chance.random_range(1..=most);
        self.ids.choose_multiple(&mut self.chance, many).copied().collect()
    }

    fn change(&mut self) -> Change {
        let id = self.ids[self.chance.random_range(0..self.ids.len())];
        (id, self.new_text(id))
    }

    /// None: it goes.
    fn new_text(&mut self, id: u32) -> Option<String> {
        (!self.chance.random_bool(0.15)).then(|| self.text(id))
    }

    fn text(&mut self, id: u32) -> String {
        self.version += 1;
        let (version, project) = (self.version, self.project);
        match self.chance.random_range(0..40) {
            0 | 1 => format!("a {REJECTED} text of {project} {id}, version {version}"),
            2 => format!("it {FAILING} for {project} {id}, version {version}"),
            // Several chunks, one of them bad.
            3 => format!("{} and one that is {REJECTED}", sentences(project, id, version, 3)),
            4..=8 => sentences(project, id, version, self.chance.random_range(2..8)),
            // Many have it.
            9..=12 => format!("a common text, number {}", self.chance.random_range(0..5)),
            _ => format!("version {version} of {project} {id}"),
        }
    }
}

fn sentences(project: &str, id: u32, version: u32, many: u32) -> String {
    let each = (0..many)
        .map(|nth| format!("Sentence {nth} of version {version} of the long text {id} in {project}, all the same."));
    each.collect::<Vec<_>>().join(" ")
}
