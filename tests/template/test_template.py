"""What template.yaml comes to once SAM has transformed it: variables, roles, schedules, URLs, alarms.

Needs cfn-lint, which brings SAM's transformation: pip install cfn-lint && python -m unittest discover tests/template
"""

import json
import logging
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from cfnlint.decode.cfn_yaml import load
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

# It counts its own work, and complains that nobody asks for the numbers.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

ROOT = Path(__file__).parents[2]
WORKERS = ("Ingestion", "Vectorization", "Cleanup")
FUNCTIONS = (*WORKERS, "Admin")
ABSENT = object()

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"
EXISTING = {"EmbeddingProvider": "openai", "DatabaseSecretArn": SECRET.format("db"), "OpenAiApiKeyArn": SECRET.format("key")}
NEW = {
    "EmbeddingProvider": "static", "CreateDatabase": "true", "DatabaseProxy": "true", "VpcId": "vpc-1",
    "SubnetIds": "subnet-1,subnet-2",
}
EVERYTHING = {
    **EXISTING, "AdminUrl": "true", "WorkerUrls": "true", "WorkerConcurrency": "2", "Tracing": "Active",
    "AlarmEmail": "ops@example.com", "SubnetIds": "subnet-1", "SecurityGroupIds": "sg-1", "SecretsKmsKeyArn": "arn:aws:kms:k",
    "DatabaseRootCertArn": SECRET.format("root"),
    "DatabaseIamUserArn": "arn:aws:rds-db:eu-central-1:123456789012:dbuser:cluster-1/cronvec",
    "DeadLetterReaderArn": "arn:aws:iam::123456789012:role/reader",
}
WAYS = {"existing": EXISTING, "new": NEW, "everything": EVERYTHING}

# Who may read what: the secrets of each function, and no other's.
READS = {
    "Ingestion": {"database", "CronSecret", "CronSecretPrevious"},
    "Vectorization": {"database", "CronSecret", "CronSecretPrevious", "keys"},
    "Cleanup": {"database", "CronSecret", "CronSecretPrevious"},
    "Admin": {"database", "SessionSecret", "keys"},
}


def transformed(parameters):
    """The template as CloudFormation gets it, with all that parameters and conditions decide put in."""
    source = json.loads(json.dumps(load(str(ROOT / "template.yaml"))))
    values = {name: default(spec) for name, spec in source["Parameters"].items()}
    values.update(parameters)
    for name, spec in source["Parameters"].items():
        if spec["Type"] == "CommaDelimitedList" and isinstance(values[name], str):
            values[name] = values[name].split(",")
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    # As `sam deploy` puts it, after it has handed the built code in.
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/code"
    template = Translator({}, Parser()).translate(source, {})
    return Resolver(template, values).resources()


def default(spec):
    return spec.get("Default", "")


class Resolver:
    def __init__(self, template, values):
        self.template, self.values = template, values

    def resources(self):
        kept = {}
        for name, resource in self.template["Resources"].items():
            if "Condition" not in resource or self.holds(resource["Condition"]):
                kept[name] = self.resolve(resource)
        return kept

    def holds(self, condition):
        return self.truth(self.template["Conditions"][condition])

    def truth(self, node):
        ((kind, rest),) = node.items()
        if kind == "Condition":
            return self.holds(rest)
        if kind == "Fn::Equals":
            left, right = (self.resolve(side) for side in rest)
            return str(left) == str(right)
        if kind == "Fn::Not":
            return not self.truth(rest[0])
        parts = [self.truth(part) for part in rest]
        return all(parts) if kind == "Fn::And" else any(parts)

    def resolve(self, node):
        """References to resources stay: {"Ref": name} and {"Fn::GetAtt": …}."""
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((kind, rest),) = node.items()
            if kind == "Ref" and rest == "AWS::NoValue":
                return ABSENT
            if kind == "Ref" and rest in self.values:
                return self.values[rest]
            if kind == "Fn::If":
                return self.resolve(rest[1] if self.holds(rest[0]) else rest[2])
            if kind == "Fn::Join" and all(isinstance(part, str) for part in self.resolve(rest[1])):
                return rest[0].join(self.resolve(rest[1]))
            if kind == "Fn::Sub" and isinstance(rest, str):
                return re.sub(r"\$\{(\w+)\}", lambda found: str(self.values.get(found[1], found[0])), rest)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not ABSENT}


def of_type(resources, kind):
    return {name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == kind}


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(role):
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


class Template(unittest.TestCase):
    def every_way(self):
        return map(transformed, WAYS.values())

    def test_every_variable_that_is_read_is_set_and_no_other(self):
        text = (ROOT / "docs/SETTINGS.md").read_text()
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        known = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
        (sentence,) = re.findall(r"^Not for Lambda: (.*?)\.\s", text, re.M | re.S)
        elsewhere = set(re.findall(r"`([A-Z_]+)`", sentence))
        self.assertLess(elsewhere, known)
        # A secret is given by its ARN.
        secrets = {"CRON_SECRET", "CRON_SECRET_PREVIOUS", "SESSION_SECRET", "OPENAI_API_KEY", "GEMINI_API_KEY",
                   "DATABASE_ROOT_CERT"}
        wanted = {name + "_ARN" if name in secrets else name for name in known - elsewhere - {"DATABASE_URL"}}
        for resources in self.every_way():
            functions = of_type(resources, "AWS::Lambda::Function")
            self.assertEqual(set(functions), set(FUNCTIONS))
            variables = {name: set(function["Environment"]["Variables"]) for name, function in functions.items()}
            self.assertEqual(set().union(*variables.values()), wanted)
            session, cron = {"SESSION_SECRET_ARN", "PUBLIC_URL"}, {"CRON_SECRET_ARN", "CRON_SECRET_PREVIOUS_ARN"}
            self.assertEqual(variables["Admin"], wanted - cron)
            for worker in WORKERS:
                self.assertEqual(variables[worker], wanted - session)

    def test_each_role_reads_its_own_secrets_and_writes_its_own_log(self):
        for parameters in WAYS.values():
            resources = transformed(parameters)
            names = {parameters.get("DatabaseSecretArn"): "database", "DatabaseSecret": "database",
                     parameters.get("OpenAiApiKeyArn"): "keys", parameters.get("GeminiApiKeyArn"): "keys",
                     parameters.get("DatabaseRootCertArn"): "root"}
            for function in FUNCTIONS:
                properties = resources[function]["Properties"]
                self.assertEqual(properties["Role"], {"Fn::GetAtt": [function + "Role", "Arn"]})
                logging = {"LogFormat": "JSON", "ApplicationLogLevel": "TRACE", "LogGroup": {"Ref": function + "Logs"}}
                self.assertEqual(properties["LoggingConfig"], logging)
                reads, actions = set(), set()
                for statement in statements(resources[function + "Role"]["Properties"]):
                    self.assertEqual(statement["Effect"], "Allow")
                    actions.update(listed(statement["Action"]))
                    if statement["Action"] == "secretsmanager:GetSecretValue":
                        for secret in listed(statement["Resource"]):
                            name = secret["Ref"] if isinstance(secret, dict) else secret
                            reads.add(names.get(name, name))
                    elif "logs:PutLogEvents" in statement["Action"]:
                        self.assertEqual(statement["Resource"], {"Fn::GetAtt": [function + "Logs", "Arn"]})
                    elif statement["Action"] == "rds-db:connect":
                        self.assertEqual(statement["Resource"], parameters["DatabaseIamUserArn"])
                    else:
                        self.assertEqual(statement["Resource"], parameters["SecretsKmsKeyArn"])
                self.assertEqual("rds-db:connect" in actions, "DatabaseIamUserArn" in parameters)
                variables = properties["Environment"]["Variables"]
                self.assertEqual(variables["DATABASE_IAM_AUTH"], str("DatabaseIamUserArn" in parameters).lower())
                keys = {"keys"} if parameters.get("OpenAiApiKeyArn") else set()
                root = {"root"} if parameters.get("DatabaseRootCertArn") else set()
                self.assertEqual(reads, (READS[function] - {"keys"}) | (READS[function] & keys) | root)
                allowed = {"logs:CreateLogStream", "logs:PutLogEvents", "secretsmanager:GetSecretValue", "kms:Decrypt", "rds-db:connect"}
                self.assertLessEqual(actions, allowed)

    def test_no_role_has_a_wildcard_and_no_managed_policy_that_was_not_asked_for(self):
        for resources in self.every_way():
            for name, role in of_type(resources, "AWS::IAM::Role").items():
                for statement in statements(role):
                    for part in listed(statement["Resource"]) + listed(statement["Action"]):
                        self.assertFalse("*" in json.dumps(part), f"{name}: {part}")
                self.assertEqual(role["AssumeRolePolicyDocument"]["Statement"][0]["Action"], "sts:AssumeRole")
        managed = lambda way: [p for p in of_type(transformed(way), "AWS::IAM::Role").values() if p.get("ManagedPolicyArns")]
        self.assertEqual(managed(EXISTING), [])
        (asked,) = {json.dumps(role["ManagedPolicyArns"]) for role in managed(EVERYTHING)}
        self.assertEqual(re.findall(r"AWS\w+", asked), ["AWSLambdaVPCAccessExecutionRole", "AWSXRayDaemonWriteAccess"])

    def test_ticks_come_at_their_rates_and_are_never_repeated(self):
        rates = {"Ingestion": "rate(1 minute)", "Vectorization": "rate(1 minute)", "Cleanup": "cron(0 2 * * ? *)"}
        for resources in self.every_way():
            schedules = of_type(resources, "AWS::Scheduler::Schedule")
            self.assertEqual(set(schedules), {worker + "Schedule" for worker in WORKERS})
            for worker, rate in rates.items():
                schedule = schedules[worker + "Schedule"]
                self.assertEqual(schedule["ScheduleExpression"], rate)
                self.assertEqual(schedule["ScheduleExpressionTimezone"], "UTC")
                self.assertEqual(schedule["FlexibleTimeWindow"], {"Mode": "OFF"})
                target = schedule["Target"]
                self.assertEqual(target["Arn"], {"Fn::GetAtt": [worker, "Arn"]})
                self.assertEqual(target["RetryPolicy"], {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60})
                self.assertEqual(target["DeadLetterConfig"], {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}})
                reference = "{{resolve:secretsmanager:${CronSecret}:SecretString}}"
                given = target["Input"]["Fn::Sub"] if isinstance(target["Input"], dict) else target["Input"]
                self.assertEqual(json.loads(given), {"authorization": "Bearer " + reference})
            configured = of_type(resources, "AWS::Lambda::EventInvokeConfig").values()
            self.assertEqual({config["FunctionName"]["Ref"] for config in configured}, set(FUNCTIONS))
            for config in configured:
                self.assertEqual((config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]), (0, 60))
            (allowed, dead) = statements(resources["SchedulerRole"]["Properties"])
            self.assertEqual(allowed["Resource"], [{"Fn::GetAtt": [worker, "Arn"]} for worker in WORKERS])
            self.assertEqual((dead["Action"], dead["Resource"]), ("sqs:SendMessage", {"Fn::GetAtt": ["DeadLetters", "Arn"]}))

    def test_generated_secrets_need_no_escaping(self):
        for resources in self.every_way():
            made = of_type(resources, "AWS::SecretsManager::Secret")
            self.assertLessEqual({"CronSecret", "CronSecretPrevious", "SessionSecret"}, set(made))
            for name, secret in made.items():
                if "GenerateSecretString" in secret:
                    self.assertIs(secret["GenerateSecretString"]["ExcludePunctuation"], True, name)
                    self.assertGreaterEqual(secret["GenerateSecretString"]["PasswordLength"], 32)

    def test_dead_letters_are_encrypted_and_read_by_nobody_who_was_not_named(self):
        for resources in self.every_way():
            self.assertIs(resources["DeadLetters"]["Properties"]["SqsManagedSseEnabled"], True)
            (policy,) = of_type(resources, "AWS::SQS::QueuePolicy").values()
            send, clear, read = policy["PolicyDocument"]["Statement"]
            self.assertEqual(send["Principal"], {"AWS": {"Fn::GetAtt": ["SchedulerRole", "Arn"]}})
            self.assertEqual((clear["Effect"], read["Effect"]), ("Deny", "Deny"))
            self.assertEqual((read["Principal"], read["Action"]), ("*", "sqs:ReceiveMessage"))
        self.assertNotIn("Condition", transformed(EXISTING)["DeadLettersPolicy"]["Properties"]["PolicyDocument"]["Statement"][2])

    def test_a_url_has_both_permissions_and_workers_have_one_only_when_asked(self):
        urls = lambda way: {name.removesuffix("Address") for name in of_type(transformed(way), "AWS::Lambda::Url")}
        self.assertEqual(urls(EXISTING), {"Admin"})
        self.assertEqual(urls({**EXISTING, "AdminUrl": "false"}), set())
        self.assertEqual(urls(EVERYTHING), set(FUNCTIONS))
        for resources in self.every_way():
            granted = {}
            for permission in of_type(resources, "AWS::Lambda::Permission").values():
                self.assertEqual(permission["Principal"], "*")
                limit = (permission.get("FunctionUrlAuthType"), permission.get("InvokedViaFunctionUrl"))
                granted.setdefault(permission["FunctionName"]["Ref"], {})[permission["Action"]] = limit
            self.assertEqual(set(granted), {url["TargetFunctionArn"]["Ref"] for url in of_type(resources, "AWS::Lambda::Url").values()})
            for actions in granted.values():
                self.assertEqual(actions, {"lambda:InvokeFunctionUrl": ("NONE", None), "lambda:InvokeFunction": (None, True)})

    def test_functions_run_as_asked_for(self):
        plain, full = transformed(EXISTING), transformed(EVERYTHING)
        for name in FUNCTIONS:
            function = plain[name]["Properties"]
            self.assertEqual((function["Runtime"], function["Architectures"], function["Timeout"]), ("provided.al2023", ["arm64"], 60))
            self.assertNotIn("ReservedConcurrentExecutions", function)
            self.assertEqual(function["VpcConfig"], {"SubnetIds": [], "SecurityGroupIds": []})
            self.assertEqual(full[name]["Properties"]["VpcConfig"], {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})
            self.assertEqual(full[name]["Properties"]["TracingConfig"], {"Mode": "Active"})
            self.assertGreater(plain[name + "Logs"]["Properties"]["RetentionInDays"], 0)
        reserved = {name for name in FUNCTIONS if "ReservedConcurrentExecutions" in full[name]["Properties"]}
        self.assertEqual(reserved, {"Ingestion", "Vectorization"})

    def test_every_alarm_tells_somebody_and_names_its_entry(self):
        entries = re.findall(r"^## (.*)$", (ROOT / "docs/OPERATIONS.md").read_text(), re.M)
        anchors = {re.sub(r"[^\w -]", "", entry.lower()).replace(" ", "-") for entry in entries}
        alarms = of_type(transformed(EXISTING), "AWS::CloudWatch::Alarm")
        named = set()
        for name, alarm in alarms.items():
            self.assertEqual(alarm["AlarmActions"], [{"Ref": "AlarmTopic"}], name)
            (anchor,) = re.findall(r"docs/OPERATIONS\.md#([\w-]+)$", alarm["AlarmDescription"])
            self.assertIn(anchor, anchors, name)
            named.add(anchor)
        self.assertEqual(named, {
            "no-tick", "oldest-pending", "quarantine-growing", "circuit-open", "errors", "unauthorised", "previous-secret",
            "close-to-the-time-out", "throttled", "dead-letter",
        })
        for worker in WORKERS:
            self.assertEqual(alarms[worker + "NoTick"]["TreatMissingData"], "breaching")

    def test_alarms_and_dashboard_use_metrics_that_the_functions_tell(self):
        source = (ROOT / "shared/nouns/src/metric.rs").read_text()
        told = set(re.findall(r'\.cloudwatch\("(\w+)"\)', source))
        resources = transformed(EXISTING)
        body = resources["Dashboard"]["Properties"]["DashboardBody"]
        shown = json.loads(body["Fn::Sub"] if isinstance(body, dict) else body)
        used = {metric[1] for widget in shown["widgets"] for metric in widget["properties"]["metrics"] if metric[0] == "cronvec"}
        used |= {a["MetricName"] for a in of_type(resources, "AWS::CloudWatch::Alarm").values() if a.get("Namespace") == "cronvec"}
        self.assertLessEqual(used, told)

    def test_the_estimate_of_costs_counts_what_the_template_makes(self):
        estimate = (ROOT / "docs/cost.py").read_text()
        (counted,) = re.findall(r"^SECRETS, METRICS, ALARMS = (\d+), \d+, (\d+)$", estimate, re.M)
        resources = transformed(EXISTING)
        made = [len(of_type(resources, kind)) for kind in ("AWS::SecretsManager::Secret", "AWS::CloudWatch::Alarm")]
        self.assertEqual([int(number) for number in counted], made)
        printed = subprocess.run([sys.executable, ROOT / "docs/cost.py"], capture_output=True, text=True, check=True).stdout
        (table,) = re.findall(r"```\n(US dollars.*?)```", (ROOT / "docs/COST.md").read_text(), re.S)
        self.assertIn(table, printed)

    def test_a_new_database_is_private_encrypted_and_outlives_the_stack(self):
        resources = transformed(NEW)
        database = resources["Database"]
        self.assertEqual((database["DeletionPolicy"], database["Properties"]["StorageEncrypted"]), ("Snapshot", True))
        self.assertIs(database["Properties"]["DeletionProtection"], True)
        (rule,) = resources["DatabaseSecurityGroup"]["Properties"]["SecurityGroupIngress"]
        self.assertEqual(rule["SourceSecurityGroupId"], {"Fn::GetAtt": ["FunctionSecurityGroup", "GroupId"]})
        self.assertIs(resources["Proxy"]["Properties"]["RequireTLS"], True)
        variables = resources["Cleanup"]["Properties"]["Environment"]["Variables"]
        self.assertEqual(variables["DATABASE_SECRET_ARN"], {"Ref": "DatabaseSecret"})
        self.assertNotIn("Database", transformed(EXISTING))


if __name__ == "__main__":
    unittest.main()
