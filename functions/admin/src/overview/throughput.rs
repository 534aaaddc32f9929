//! `GET /api/admin/throughput`

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use cronvec_nouns::token::Reach;
use cronvec_store::monitor::Flow;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::identity::Watches;
use crate::request::Params;
use crate::{Admin, Refusal};

/// The day's hours that are over are read again after so long: they have a thousand times the rows of a minute.
const DAY_KEPT: Duration = Duration::from_secs(60);
/// Sets of projects whose day is kept.
const KEPT: usize = 100;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// `hour`: the last one by minute; `day`: the last one by hour.
    #[param(example = "hour")]
    window: Option<String>,
}

/// Records embedded and failed, minute by minute or hour by hour.
#[utoipa::path(get, path = "/api/admin/throughput", tag = "overview", operation_id = "throughput", params(Wanted),
    responses((status = 200, description = "Those in which something moved, the latest last.", body = Vec<Flow>)))]
pub(crate) async fn list(
    Watches(caller): Watches,
    State(admin): State<Admin>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Vec<Flow>>, Refusal> {
    let windows = admin.windows(&caller.reach).await?;
    match wanted.window.as_deref() {
        None | Some("hour") => Ok(Json(windows.hour)),
        Some("day") => Ok(Json(windows.day)),
        Some(_) => Err(Refusal::field("window", "it is hour or day")),
    }
}

/// Both of them.
pub(crate) struct Windows {
    pub hour: Vec<Flow>,
    pub day: Vec<Flow>,
}

/// Days that were read lately, by the projects that they are of.
#[derive(Default)]
pub(crate) struct Days(Mutex<HashMap<Projects, Day>>);

/// None: all.
type Projects = Option<Vec<String>>;
/// When it was read, before which hour it ends, and what.
type Day = (Instant, String, Vec<Flow>);

impl Days {
    fn kept(&self, reach: &Reach, before: &str) -> Option<Vec<Flow>> {
        let days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, ends, day) = days.get(&reach.projects().map(<[String]>::to_vec))?;
        (at.elapsed() < DAY_KEPT && ends == before).then(|| day.clone())
    }

    fn keep(&self, reach: &Reach, before: &str, day: &[Flow]) {
        let mut days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if days.len() >= KEPT {
            days.retain(|_, (at, ..)| at.elapsed() < DAY_KEPT);
        }
        if days.len() < KEPT {
            let day = (Instant::now(), before.to_owned(), day.to_vec());
            days.insert(reach.projects().map(<[String]>::to_vec), day);
        }
    }
}

impl Admin {
    pub(super) async fn windows(&self, reach: &Reach) -> Result<Windows, Refusal> {
        let store = self.store().await?;
        let lately = store.flow_lately(reach).await?;
        let mut day = match self.days().kept(reach, &lately.since) {
            Some(day) => day,
            None => {
                let day = store.flow_before(reach).await?;
                self.days().keep(reach, &lately.since, &day);
                day
            }
        };
        // Of the hour that may have turned between the two readings once.
        day.retain(|hour| hour.at < lately.since);
        day.extend(lately.hours);
        Ok(Windows {
            hour: lately.minutes,
            day,
        })
    }
}
