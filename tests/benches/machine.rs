//! Owns what a reader must know of the machine and the versions.

use cronvec_tests::database::Database;

pub async fn describe() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let database = Database::fresh().await;
    let rows = database
        .client()
        .await
        .query_typed(
            "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
                 current_setting('shared_buffers'), current_setting('fsync')",
            &[],
        )
        .await
        .expect("the versions");
    let version = |column: usize| rows[0].get::<_, String>(column);
    println!(
        "{cores} cores ({}), {} of memory; PostgreSQL {}, pgvector {}, shared_buffers {}, fsync {}; load {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        version(0),
        version(1),
        version(2),
        version(3),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
}
