//! Owns what the schedules of a group send as their bearer. Refuses to change anything else of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use cronvec_aws::service::Service;

const LIMIT: Duration = Duration::from_secs(20);
/// What only an answer has.
const OF_THE_ANSWER: [&str; 4] = ["Arn", "CreationDate", "LastModificationDate", "Name"];

/// A group of EventBridge Scheduler's.
#[derive(Debug)]
pub(super) struct Schedules {
    service: Service,
    group: String,
}

impl Schedules {
    pub async fn new(region: &str, group: &str) -> Result<Self, String> {
        Ok(Self {
            service: Service::new("scheduler", region.to_owned()).await?,
            group: group.to_owned(),
        })
    }

    /// Lets every schedule whose input has a bearer bear this one; the names of those that bore another.
    pub async fn bear(&self, secret: &str) -> Result<Vec<String>, String> {
        let bearer = format!("Bearer {secret}");
        let (mut bearing, mut changed) = (0, Vec::new());
        for name in self.names().await? {
            let mut schedule = self.call(Method::GET, self.named(&name, true)?, None).await?;
            let input = schedule["Target"]["Input"].as_str().unwrap_or_default();
            // Others may stand in the group; they aren't ours.
            let Ok(mut event) = serde_json::from_str::<Value>(input) else {
                continue;
            };
            let Some(authorization) = event.get_mut("authorization") else {
                continue;
            };
            bearing += 1;
            if *authorization == bearer.as_str() {
                continue;
            }
            *authorization = bearer.as_str().into();
            schedule["Target"]["Input"] = event.to_string().into();
            self.replace(&name, schedule).await?;
            changed.push(name);
        }
        if bearing == 0 {
            return Err(format!("none in the group {} has an input with a bearer", self.group));
        }
        Ok(changed)
    }

    async fn names(&self) -> Result<Vec<String>, String> {
        let (mut names, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut url = self.service.url(&["schedules"])?;
            url.query_pairs_mut().append_pair("ScheduleGroup", &self.group);
            if let Some(next) = &next {
                url.query_pairs_mut().append_pair("NextToken", next);
            }
            let page = self.call(Method::GET, url, None).await?;
            let listed = page["Schedules"].as_array().into_iter().flatten();
            names.extend(listed.filter_map(|schedule| schedule["Name"].as_str().map(str::to_owned)));
            next = page["NextToken"]
                .as_str()
                .filter(|next| !next.is_empty())
                .map(str::to_owned);
            if next.is_none() {
                return Ok(names);
            }
        }
    }

    /// An update that leaves a field out sets it back to its default: all that it was is sent again.
    async fn replace(&self, name: &str, mut schedule: Value) -> Result<(), String> {
        if let Some(fields) = schedule.as_object_mut() {
            fields.retain(|field, value| !OF_THE_ANSWER.contains(&field.as_str()) && !value.is_null());
        }
        schedule["GroupName"] = json!(self.group);
        let url = self.named(name, false)?;
        self.call(Method::PUT, url, Some(schedule.to_string())).await?;
        Ok(())
    }

    fn named(&self, name: &str, with_group: bool) -> Result<Url, String> {
        let mut url = self.service.url(&["schedules", name])?;
        if with_group {
            url.query_pairs_mut().append_pair("groupName", &self.group);
        }
        Ok(url)
    }

    async fn call(&self, method: Method, url: Url, body: Option<String>) -> Result<Value, String> {
        let what = format!("{method} {}", url.path());
        let answer = self.service.send(method, url, body.unwrap_or_default(), LIMIT).await?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.without_url().to_string())?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let said = ["Message", "message"].into_iter().find_map(|name| value[name].as_str());
        let said = said.unwrap_or("no reason that could be read");
        Err(format!("{what} was answered with {}: {said}", status.as_u16()))
    }
}
