#include "services/gateway/route_config.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/yaml_documents.h"
#include "services/gateway/upstream_reader.h"
#include "services/gateway/yaml_fields.h"

namespace onegrid::gateway {
namespace {

constexpr size_t kFileBytesMax = 1 << 20;
constexpr int64_t kCountMax = 1'000'000'000'000;

absl::Status Invalid(absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, "INVALID_ROUTES",
                           absl::StrCat("routes: ", what));
}

void ReadRange(YamlFields& fields, const std::string& name,
               RouteConditions::Range* range) {
  fields.Read(name + "_min", 1, kCountMax, &range->min);
  fields.Read(name + "_max", 0, kCountMax, &range->max);
  if (range->min > range->max) {
    fields.Fail(name + "_min", absl::StrCat("is above ", name, "_max"));
  }
}

void ReadConditions(const YAML::Node& node, const std::string& where,
                    absl::Status* status, RouteConditions* when) {
  YamlFields fields(node, where,
                    {"model", "task", "prompt_characters_min",
                     "prompt_characters_max", "prompt_tokens_min",
                     "prompt_tokens_max", "max_tokens_min", "max_tokens_max",
                     "has_tools", "has_response_format", "local_queued_min"},
                    status);
  fields.Read("model", &when->models);
  fields.Read("task", &when->tasks);
  ReadRange(fields, "prompt_characters", &when->prompt_characters);
  ReadRange(fields, "prompt_tokens", &when->prompt_tokens);
  ReadRange(fields, "max_tokens", &when->max_tokens);
  bool value = false;
  fields.Read("has_tools", &value);
  if (fields.Has("has_tools")) when->has_tools = value;
  value = false;
  fields.Read("has_response_format", &value);
  if (fields.Has("has_response_format")) when->has_response_format = value;
  fields.Read("local_queued_min", 1, kCountMax, &when->local_queued_min);
}

// Error: no upstream has this name.
void CheckUpstream(const RouteConfig& config, YamlFields& fields,
                   const std::string& key, const std::string& name) {
  for (const UpstreamConfig& upstream : config.upstreams) {
    if (upstream.name == name) return;
  }
  fields.Fail(key, "no upstream has this name");
}

void ReadEscalation(const YAML::Node& node, const RouteConfig& config,
                    const std::string& where, absl::Status* status,
                    RouteRule* rule) {
  YamlFields fields(node, where,
                    {"to", "mean_logprob_below", "min_logprob_below"}, status);
  fields.Require({"to"});
  fields.Read("to", &rule->upstream);
  if (fields.ok()) CheckUpstream(config, fields, "to", rule->upstream);
  if (fields.Has("mean_logprob_below") == fields.Has("min_logprob_below")) {
    fields.Fail("to",
                "expected either mean_logprob_below or "
                "min_logprob_below beside it");
  }
  rule->action = RouteRule::Action::kEscalate;
  rule->measure = fields.Has("min_logprob_below")
                      ? RouteRule::Measure::kMinLogprob
                      : RouteRule::Measure::kMeanLogprob;
  fields.Read("mean_logprob_below", -1000, 0, &rule->below);
  fields.Read("min_logprob_below", -1000, 0, &rule->below);
}

RouteRule ReadRule(const YAML::Node& node, const RouteConfig& config,
                   const std::string& where, absl::Status* status) {
  RouteRule rule;
  YamlFields fields(node, where, {"name", "when", "send", "escalate"}, status);
  fields.Require({"name"});
  ReadName(fields, &rule.name);
  if (rule.name == kDefaultRule || rule.name == kPrivateRule) {
    fields.Fail("name", "default and private are names of the gateway's own");
  }
  if (fields.Has("when")) {
    ReadConditions(fields.Find("when"), absl::StrCat(where, ", when"), status,
                   &rule.when);
  }
  if (fields.Has("send") == fields.Has("escalate")) {
    fields.Fail("name", "expected either send or escalate beside it");
  } else if (fields.Has("escalate")) {
    ReadEscalation(fields.Find("escalate"), config,
                   absl::StrCat(where, ", escalate"), status, &rule);
  } else {
    std::string target;
    fields.Read("send", &target);
    if (fields.ok() && target != kLocalTarget) {
      CheckUpstream(config, fields, "send", target);
      rule.action = RouteRule::Action::kUpstream;
      rule.upstream = target;
    }
  }
  return rule;
}

bool IsUnconditional(const RouteConditions& when) {
  return when.models.empty() && when.tasks.empty() &&
         !when.prompt_characters.given() && !when.prompt_tokens.given() &&
         !when.max_tokens.given() && !when.has_tools.has_value() &&
         !when.has_response_format.has_value() && when.local_queued_min == 0;
}

void ReadLists(YamlFields& fields, const std::filesystem::path& folder,
               absl::Status* status, RouteConfig* config) {
  for (const char* key : {"upstreams", "rules"}) {
    if (fields.Has(key) && !fields.Find(key).IsSequence()) {
      return fields.Fail(key, "expected a list");
    }
  }
  for (const auto& node : fields.Find("upstreams")) {
    const std::string where =
        absl::StrCat("upstream ", config->upstreams.size() + 1);
    UpstreamConfig upstream = ReadUpstream(node, where, folder, status);
    for (const UpstreamConfig& other : config->upstreams) {
      if (other.name != upstream.name) continue;
      fields.Fail("upstreams", absl::StrCat(where, " has the name of another"));
    }
    if (!status->ok()) return;
    config->upstreams.push_back(std::move(upstream));
  }
  for (const auto& node : fields.Find("rules")) {
    const std::string where = absl::StrCat("rule ", config->rules.size() + 1);
    RouteRule rule = ReadRule(node, *config, where, status);
    for (const RouteRule& other : config->rules) {
      if (other.name == rule.name) {
        fields.Fail("rules", absl::StrCat(where, " has the name of another"));
      }
      if (IsUnconditional(other.when)) {
        fields.Fail("rules",
                    absl::StrCat(where, " is never reached: rule ", other.name,
                                 " before it has no conditions"));
      }
    }
    if (!status->ok()) return;
    config->rules.push_back(std::move(rule));
  }
}

}  // namespace

absl::StatusOr<RouteConfig> ParseRouteConfig(absl::string_view text,
                                             const std::string& folder) {
  if (text.size() > kFileBytesMax) return Invalid("more than 1 MB");
  RouteConfig config;
  absl::Status status;
  try {
    if (common::HasMoreYamlDocuments(text)) {
      return Invalid("expected one document and nothing after it");
    }
    YamlFields fields(
        YAML::Load(std::string(text)), "file",
        {"default_privacy", "upstreams", "rules", "on_local_failure"}, &status);
    fields.Require({"default_privacy", "upstreams", "rules"});
    std::string privacy;
    fields.Read("default_privacy", &privacy);
    if (fields.ok() && privacy != "private" && privacy != "public") {
      fields.Fail("default_privacy", "expected private or public");
    }
    config.private_by_default = privacy != "public";
    if (status.ok()) ReadLists(fields, folder, &status, &config);
    fields.Read("on_local_failure", &config.on_local_failure);
    if (fields.ok() && fields.Has("on_local_failure")) {
      CheckUpstream(config, fields, "on_local_failure",
                    config.on_local_failure);
    }
  } catch (const YAML::Exception& error) {
    // The library's words may quote the text.
    return Invalid(absl::StrCat("line ", error.mark.line + 1, ": not YAML"));
  }
  if (!status.ok()) return status;
  return config;
}

absl::StatusOr<RouteConfig> ReadRouteConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
  return ParseRouteConfig(text,
                          std::filesystem::path(path).parent_path().string());
}

}  // namespace onegrid::gateway
