//! Owns signed calls of AWS services for which no SDK is compiled in. Refuses to know what is asked.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use reqwest::{Method, Response};
use url::Url;

const JSON: (&str, &str) = ("content-type", "application/json");

/// One service in one region, asked with the environment's credentials.
pub struct Service {
    client: reqwest::Client,
    config: SdkConfig,
    name: &'static str,
    region: String,
    base: Url,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Configured by the environment as every AWS client is, `AWS_ENDPOINT_URL` included. Asks nobody.
    pub async fn new(name: &'static str, region: String) -> Result<Self, String> {
        cronvec_edges::tls::install();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        // The region is known before the client is made: it would go and look for one.
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(region.clone()))
            .load()
            .await;
        let base = config
            .endpoint_url()
            .map_or_else(|| format!("https://{name}.{region}.amazonaws.com"), str::to_owned);
        let base = Url::parse(&base).map_err(|error| format!("AWS_ENDPOINT_URL is no address: {error}"))?;
        let client = cronvec_edges::http::client_for(base.host().as_ref())
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(Self {
            client,
            config,
            name,
            region,
            base,
        })
    }

    /// The address of what lies at these segments.
    pub fn url(&self, segments: &[&str]) -> Result<Url, String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| "AWS_ENDPOINT_URL is no address".to_owned())?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// One call, until its answer begins.
    pub async fn send(&self, method: Method, url: Url, body: String, limit: Duration) -> Result<Response, String> {
        let mut request = self.client.request(method.clone(), url.clone()).timeout(limit);
        request = request.header(JSON.0, JSON.1);
        for (name, value) in self.signature(&method, &url, &body).await? {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await;
        answer.map_err(|error| error.without_url().to_string())
    }

    /// An address that says itself who asks, to be used within `lifetime`.
    pub async fn presign(&self, mut url: Url, lifetime: Duration) -> Result<Url, String> {
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(lifetime);
        let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]));
        let request = request.map_err(|error| error.to_string())?;
        let instructions = self.sign(request, settings).await?;
        for (name, value) in instructions.params() {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// The headers that say who asks.
    async fn signature(&self, method: &Method, url: &Url, body: &str) -> Result<Vec<(&'static str, String)>, String> {
        let request = SignableRequest::new(
            method.as_str(),
            url.as_str(),
            std::iter::once(JSON),
            SignableBody::Bytes(body.as_bytes()),
        );
        let request = request.map_err(|error| error.to_string())?;
        let instructions = self.sign(request, SigningSettings::default()).await?;
        let (headers, _) = instructions.into_parts();
        Ok(headers
            .into_iter()
            .map(|header| (header.name(), header.value().to_owned()))
            .collect())
    }

    async fn sign(
        &self,
        request: SignableRequest<'_>,
        settings: SigningSettings,
    ) -> Result<SigningInstructions, String> {
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or("no AWS credentials are set up")?;
        let credentials = provider.provide_credentials().await;
        let identity = credentials
            .map_err(|error| format!("no AWS credentials: {}", cronvec_edges::cause::chain(&error)))?
            .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let signed = sign(request, &params).map_err(|error| error.to_string())?;
        Ok(signed.into_parts().0)
    }
}
