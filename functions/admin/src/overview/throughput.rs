//! `GET /api/admin/throughput`

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::store::monitor::{Flow, Window};
use shared::token::Reach;
use utoipa::IntoParams;

use crate::identity::Watches;
use crate::request::Params;
use crate::{Admin, Refusal};

/// A day by the hour is read again after so long: it has a thousand times the rows of a minute.
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
/// When it was read, and what.
type Day = (Instant, Vec<Flow>);

impl Days {
    fn kept(&self, reach: &Reach) -> Option<Vec<Flow>> {
        let days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, day) = days.get(&reach.projects().map(<[String]>::to_vec))?;
        (at.elapsed() < DAY_KEPT).then(|| day.clone())
    }

    fn keep(&self, reach: &Reach, day: &[Flow]) {
        let mut days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if days.len() >= KEPT {
            days.retain(|_, (at, _)| at.elapsed() < DAY_KEPT);
        }
        if days.len() < KEPT {
            days.insert(reach.projects().map(<[String]>::to_vec), (Instant::now(), day.to_vec()));
        }
    }
}

impl Admin {
    pub(super) async fn windows(&self, reach: &Reach) -> Result<Windows, Refusal> {
        let store = self.store().await?;
        let hour = store.flow(reach, Window::Hour).await?;
        let day = match self.days().kept(reach) {
            Some(day) => day,
            None => {
                let day = store.flow(reach, Window::Day).await?;
                self.days().keep(reach, &day);
                day
            }
        };
        Ok(Windows { hour, day })
    }
}
