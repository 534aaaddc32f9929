//! stub
use deadpool_postgres::Pool;
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ConnectError;
#[derive(Clone)]
pub struct Database {
    pub pool: Pool,
}
impl Database {
    pub async fn get(&self) -> Result<deadpool_postgres::Object, ConnectError> {
        self.pool.get().await.map_err(|_| ConnectError)
    }
}
