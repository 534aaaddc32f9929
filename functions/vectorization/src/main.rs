//! The Lambda function: wiring only.

#[tokio::main]
async fn main() -> Result<(), cronvec_lambda::Error> {
    cronvec_lambda::run::<vectorization::Vectorization>().await
}
