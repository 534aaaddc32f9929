//! What each place shows of the numbers, and that it is declared in `cronvec_nouns::metric`.

use std::collections::BTreeSet;

use cronvec_nouns::metric::{ALL, Metric};
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::Value;

use super::serve::{Service, production};
use super::{DONE, whole};

/// The names at one place.
fn declared(name: fn(&Metric) -> &'static str) -> BTreeSet<String> {
    ALL.iter()
        .map(|metric| name(metric).to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// What a report tells in numbers.
fn numbers(report: &Value) -> impl Iterator<Item = String> {
    let fields = report.as_object().unwrap().iter();
    fields
        .filter(|(_, value)| value.is_number() || value.is_object())
        .map(|(name, _)| name.clone())
}

#[tokio::test]
async fn reports_the_table_and_prometheus_show_what_is_declared_and_nothing_else() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = production(&system, &provider);
    provider.answer_containing("nobody takes", Answer::rejected());
    system.put(PROJECT, "good", "a text").await;
    system.put(PROJECT, "bad", "what nobody takes").await;
    let service = Service::start(&cli, "").await;
    eventually("one is embedded, and one quarantined", || async {
        system
            .count("SELECT count(*) FROM cronvec.performance_metrics WHERE metric = 'records_quarantined'")
            .await
            > 0
    })
    .await;
    let (_, page) = service.ask("GET", "/metrics", None).await;
    let heads: BTreeSet<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
    let shown = ALL.iter().filter(|metric| !metric.prometheus.is_empty());
    let expected: BTreeSet<String> = shown
        .flat_map(|metric| {
            let (name, kind) = (metric.prometheus, metric.kind.as_str());
            [
                format!("# HELP {name} {}", metric.help),
                format!("# TYPE {name} {kind}"),
            ]
        })
        .collect();
    assert_eq!(heads, expected.iter().map(String::as_str).collect());
    service.process.terminate();
    assert_eq!(whole(service.process).await.code(), Some(DONE));

    let names = "SELECT coalesce(jsonb_agg(DISTINCT regexp_replace(metric, '_le_\\d+$', '_le_')), '[]')
                 FROM cronvec.performance_metrics";
    let written: BTreeSet<String> = serde_json::from_value(system.value(names).await).unwrap();
    assert_eq!(written, declared(|metric| metric.table));

    let mut told = BTreeSet::new();
    for worker in ["ingestion", "vectorization", "cleanup"] {
        told.extend(numbers(&cli.object(&format!("tick {worker}")).await));
    }
    // It is the call's, not the pass's.
    told.insert("duration".to_owned());
    assert_eq!(told, declared(|metric| metric.report));
}

#[test]
fn no_name_is_declared_twice_and_cloudwatch_calls_a_number_as_the_report_does() {
    for name in [
        |metric: &Metric| metric.report,
        |metric: &Metric| metric.cloudwatch,
        |metric: &Metric| metric.table,
        |metric: &Metric| metric.prometheus,
    ] {
        let named = ALL.iter().filter(|metric| !name(metric).is_empty());
        assert_eq!(named.count(), declared(name).len());
    }
    for metric in ALL.iter().filter(|metric| !metric.report.is_empty()) {
        assert!(
            ["", metric.report].contains(&metric.cloudwatch),
            "one lookup serves both: {metric:?}"
        );
    }
}

#[test]
fn operations_names_every_number() {
    let document = include_str!("../../../../docs/OPERATIONS.md");
    for metric in ALL {
        for name in [metric.report, metric.cloudwatch, metric.table, metric.prometheus] {
            assert!(name.is_empty() || document.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn statements_ask_for_declared_numbers_only() {
    let known = declared(|metric| metric.table);
    for source in [
        include_str!("../../../../shared/store/src/figures.rs"),
        include_str!("../../../../shared/store/src/monitor.rs"),
        include_str!("../../../../shared/store/src/outlook.rs"),
    ] {
        let asked = source.split("metric = ").chain(source.split("metric IN (")).skip(1);
        let names = asked.flat_map(|rest| rest.split(')').next().unwrap().split('\'').skip(1).step_by(2));
        // In braces are constants of the list.
        for name in names.filter(|name| !name.starts_with('{')) {
            assert!(known.contains(name), "{name}");
        }
    }
}
