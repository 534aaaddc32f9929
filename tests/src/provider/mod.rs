//! Owns a provider of OpenAI's, Ollama's or Gemini's shape, as it is asked, over real HTTP on loopback, that misbehaves when told to.

mod answer;
mod dialect;
mod log;
mod routes;
mod vectors;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use answer::Answer;
pub use log::Log;
pub use vectors::vector;

use crate::background;

/// How a provider behaves when nothing else is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// How long each request takes.
    pub latency: Duration,
    /// The vectors' width when the request names none.
    pub dimensions: usize,
    /// Answers prepared beforehand, the same vector for each place in a batch whatever its text; of what is asked only the
    /// inputs are counted.
    pub instant: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            latency: Duration::ZERO,
            dimensions: 256,
            instant: false,
        }
    }
}

type Predicate = Box<dyn Fn(&[String]) -> bool + Send>;

struct Rule {
    applies: Predicate,
    /// None: for ever.
    times: Option<usize>,
    answer: Answer,
}

struct State {
    dimensions: usize,
    latency: Mutex<Duration>,
    rules: Mutex<Vec<Rule>>,
    gate: Mutex<Option<(Predicate, Arc<Semaphore>)>>,
    log: Mutex<Log>,
    inputs: AtomicUsize,
    open: watch::Sender<usize>,
    prepared: Option<vectors::Prepared>,
}

/// A running provider. It ends when dropped.
pub struct Provider {
    state: Arc<State>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Provider {
    /// One that behaves well, at once.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// One of one's own making.
    pub async fn with(options: Options) -> Self {
        let state = Arc::new(State {
            dimensions: options.dimensions,
            latency: Mutex::new(options.latency),
            rules: Mutex::default(),
            gate: Mutex::default(),
            log: Mutex::default(),
            inputs: AtomicUsize::new(0),
            open: watch::channel(0).0,
            prepared: options.instant.then(|| vectors::Prepared::new(options.dimensions)),
        });
        let router = routes::router(state.clone());
        let port = options.port;
        // The test's own runtime may be blocked, or be busy with the work under test.
        let (address, serving) = background::handle()
            .spawn(async move {
                let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
                let address = listener.local_addr().expect("an address");
                let serving = tokio::spawn(async move {
                    let _ = axum::serve(listener, router).await;
                });
                (address, serving)
            })
            .await
            .expect("a provider");
        Self {
            state,
            address,
            serving,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, as in `https://api.openai.com/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL of the shapes whose paths begin at the root, as in `http://localhost:11434`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How long each request takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        *self.state.latency.lock().expect("latency") = latency;
    }

    /// Answers the next `times` requests so, whatever they ask. Rules are asked in the order they were made.
    pub fn answer_next(&self, times: usize, answer: Answer) {
        self.rule(Some(times), Box::new(|_| true), answer);
    }

    /// Answers every request so whose inputs satisfy the predicate, until [`Self::behave`].
    pub fn answer_when(&self, applies: impl Fn(&[String]) -> bool + Send + 'static, answer: Answer) {
        self.rule(None, Box::new(applies), answer);
    }

    /// Answers every batch with an input that contains this text so: a 400 for bad input, or a lasting 500.
    pub fn answer_containing(&self, text: &str, answer: Answer) {
        let text = text.to_owned();
        self.answer_when(move |inputs| inputs.iter().any(|input| input.contains(&text)), answer);
    }

    /// Forgets all rules.
    pub fn behave(&self) {
        self.state.rules.lock().expect("rules").clear();
    }

    /// Holds every request that arrives from now on.
    pub fn hold(&self) -> Gate {
        self.hold_when(|_| true)
    }

    /// Holds those whose inputs satisfy the predicate; they go on in the order in which they came.
    pub fn hold_when(&self, applies: impl Fn(&[String]) -> bool + Send + 'static) -> Gate {
        let semaphore = Arc::new(Semaphore::new(0));
        *self.state.gate.lock().expect("gate") = Some((Box::new(applies), semaphore.clone()));
        Gate {
            semaphore,
            state: self.state.clone(),
        }
    }

    /// Follows how many requests have arrived whole and aren't answered, nor given up by the client.
    pub fn open_requests(&self) -> watch::Receiver<usize> {
        self.state.open.subscribe()
    }

    /// Waits until at least `count` requests are open.
    pub async fn wait_open(&self, count: usize) {
        let mut open = self.open_requests();
        let waited = tokio::time::timeout(crate::conditions::LIMIT, open.wait_for(|open| *open >= count)).await;
        assert!(waited.is_ok(), "waited in vain until {count} requests are open");
    }

    /// How many inputs it was ever sent.
    pub fn inputs(&self) -> usize {
        self.state.inputs.load(Ordering::Relaxed)
    }

    /// All that it was ever asked.
    pub fn log(&self) -> Log {
        self.state.log.lock().expect("log").clone()
    }

    fn rule(&self, times: Option<usize>, applies: Predicate, answer: Answer) {
        self.state
            .rules
            .lock()
            .expect("rules")
            .push(Rule { applies, times, answer });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Holds requests open until it is released or dropped.
pub struct Gate {
    semaphore: Arc<Semaphore>,
    state: Arc<State>,
}

impl Gate {
    /// Lets this many of the held requests go on.
    pub fn pass(&self, count: usize) {
        self.semaphore.add_permits(count);
    }

    /// Lets all go on, and holds no more.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.semaphore.close();
        let mut gate = self.state.gate.lock().expect("gate");
        if gate
            .as_ref()
            .is_some_and(|(_, current)| Arc::ptr_eq(current, &self.semaphore))
        {
            *gate = None;
        }
    }
}
