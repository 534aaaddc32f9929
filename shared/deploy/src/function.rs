//! Owns the invocation of a worker's Lambda function by its name, signed. Refuses to judge what it answers.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use cronvec_aws::service::Service;
use cronvec_call::CallOptions;

/// A function of the account that the environment's AWS settings are for.
pub struct Function {
    service: Service,
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
    /// By its name or ARN, whose own region comes before `region`. Asks nobody.
    pub async fn new(name: &str, region: Option<String>, secret: Option<String>) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a function has a name: --via lambda:NAME".to_owned());
        }
        let of_arn = name.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2));
        let region = of_arn
            .map(str::to_owned)
            .or(region)
            .ok_or("AWS_REGION is not set, and the function's name is no ARN that says its region")?;
        Ok(Self {
            service: Service::new("lambda", region).await?,
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
        let url = self
            .service
            .url(&["2015-03-31", "functions", &self.name, "invocations"])?;
        let answer = self.service.send(Method::POST, url, event.to_string(), limit).await?;
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
}
