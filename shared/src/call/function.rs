//! Owns the invocation of a worker's Lambda function by its name, signed. Refuses to judge what it answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde_json::{Value, json};
use url::Url;

use super::CallOptions;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A function of the account that the environment's AWS settings are for.
pub struct Function {
    client: reqwest::Client,
    config: SdkConfig,
    region: String,
    url: Url,
    name: String,
    secret: Option<String>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Function {
    /// By its name or ARN. Configured by the environment as every AWS client is, `AWS_ENDPOINT_URL` included. Asks nobody.
    /// An ARN's own region comes before `region`.
    pub async fn new(name: &str, region: Option<String>, secret: Option<String>) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a function has a name: --via lambda:NAME".to_owned());
        }
        crate::tls::install();
        // An ARN says where it is. The region is known before the client is made: it would go and look for one.
        let of_arn = name.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2));
        let region = of_arn
            .map(str::to_owned)
            .or(region)
            .ok_or("AWS_REGION is not set, and the function's name is no ARN that says its region")?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(region.clone()))
            .load()
            .await;
        let base = config
            .endpoint_url()
            .map_or_else(|| format!("https://lambda.{region}.amazonaws.com"), str::to_owned);
        let mut url = Url::parse(&base).map_err(|error| format!("AWS_ENDPOINT_URL is no address: {error}"))?;
        url.path_segments_mut()
            .map_err(|()| "AWS_ENDPOINT_URL is no address".to_owned())?
            .pop_if_empty()
            .extend(["2015-03-31", "functions", name, "invocations"]);
        let client = reqwest::Client::builder()
            .user_agent(concat!("cronvec/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(Self {
            client,
            config,
            region,
            url,
            name: name.to_owned(),
            secret,
        })
    }

    /// One invocation, waited for; its report, or why there is none.
    pub async fn invoke(&self, options: &CallOptions, limit: Duration) -> Result<Value, String> {
        let mut event = json!({});
        if let Some(secret) = &self.secret {
            event["authorization"] = format!("Bearer {secret}").into();
        }
        if let Some(project) = &options.project {
            event["project"] = project.as_str().into();
        }
        if let Some(records) = options.max_records {
            event["maxRecords"] = records.into();
        }
        if let Some(seconds) = options.max_seconds {
            event["maxSeconds"] = seconds.into();
        }
        let body = event.to_string();
        let mut request = self.client.post(self.url.clone()).timeout(limit);
        for (name, value) in self.signature(&body).await? {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        let (status, failed) = (answer.status(), answer.headers().contains_key("x-amz-function-error"));
        let text = answer.text().await.map_err(|error| error.without_url().to_string())?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() && !failed && value["success"] == true {
            return Ok(value);
        }
        let said = ["errorMessage", "Message", "message"]
            .into_iter()
            .find_map(|name| value[name].as_str());
        Err(format!(
            "the function {} answered {}: {}",
            self.name,
            status.as_u16(),
            said.unwrap_or("no reason that could be read")
        ))
    }

    /// The headers that say who asks.
    async fn signature(&self, body: &str) -> Result<Vec<(&'static str, String)>, String> {
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or("no AWS credentials are set up")?;
        let credentials = provider.provide_credentials().await;
        let identity = credentials
            .map_err(|error| format!("no AWS credentials: {}", crate::cause::chain(&error)))?
            .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("lambda")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let signable = SignableRequest::new(
            "POST",
            self.url.as_str(),
            std::iter::empty(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signed = sign(signable.map_err(|error| error.to_string())?, &params).map_err(|error| error.to_string())?;
        let (instructions, _) = signed.into_parts();
        let (headers, _) = instructions.into_parts();
        Ok(headers
            .into_iter()
            .map(|header| (header.name(), header.value().to_owned()))
            .collect())
    }
}
