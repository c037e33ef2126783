#include "services/gateway/upstream_reader.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/files.h"

namespace onegrid::gateway {
namespace {

constexpr size_t kKeyBytesMax = 4096;
constexpr size_t kNameBytesMax = 63;
constexpr int64_t kMillisecondsMax = 3'600'000;
constexpr int64_t kTokensMax = 1'000'000'000'000;
constexpr double kCostMax = 1e9;

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= kNameBytesMax &&
         absl::ascii_islower(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) ||
                  c == '_' || c == '-';
         });
}

std::string UrlPart(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK) return "";
  const std::string copy = text;
  curl_free(text);
  return copy;
}

void CheckUrl(YamlFields& fields, std::string* base_url) {
  if (!fields.ok()) return;
  const std::unique_ptr<CURLU, void (*)(CURLU*)> url(curl_url(),
                                                     curl_url_cleanup);
  const bool parsed =
      curl_url_set(url.get(), CURLUPART_URL, base_url->c_str(), 0) == CURLUE_OK;
  const std::string scheme = UrlPart(url.get(), CURLUPART_SCHEME);
  const bool has_more = !UrlPart(url.get(), CURLUPART_USER).empty() ||
                        !UrlPart(url.get(), CURLUPART_PASSWORD).empty() ||
                        absl::StrContains(*base_url, '?') ||
                        absl::StrContains(*base_url, '#') ||
                        absl::StrContains(*base_url, ' ');
  if (!parsed || has_more || (scheme != "http" && scheme != "https")) {
    return fields.Fail("base_url",
                       "expected an http:// or https:// URL without user, "
                       "password, query and fragment");
  }
  while (absl::EndsWith(*base_url, "/")) base_url->pop_back();
}

// What is in the file, without white space around it.
void ReadKey(YamlFields& fields, const std::filesystem::path& folder,
             ApiKey* key) {
  std::string path;
  fields.Read("api_key_file", &path);
  if (path.empty()) return;
  auto text = common::ReadFile(folder / path);
  if (!text.ok()) return fields.Fail("api_key_file", text.status().message());
  absl::StripAsciiWhitespace(&*text);
  // It becomes a header.
  const bool printable =
      std::all_of(text->begin(), text->end(),
                  [](unsigned char c) { return absl::ascii_isgraph(c); });
  if (text->empty() || text->size() > kKeyBytesMax || !printable) {
    return fields.Fail("api_key_file",
                       "expected a file with one key of printable characters");
  }
  *key = ApiKey(*std::move(text));
}

void ReadMilliseconds(YamlFields& fields, const std::string& key,
                      absl::Duration* out) {
  int64_t milliseconds = absl::ToInt64Milliseconds(*out);
  fields.Read(key, 1, kMillisecondsMax, &milliseconds);
  *out = absl::Milliseconds(milliseconds);
}

void ReadBudget(const YAML::Node& node, const std::string& where,
                absl::Status* status, BudgetLimits* budget) {
  YamlFields fields(node, where,
                    {"requests_per_minute", "tokens_per_day", "cost_per_day",
                     "prompt_cost_per_million", "completion_cost_per_million"},
                    status);
  // So that what it keeps of the last minute stays small.
  fields.Read("requests_per_minute", 1, 1'000'000,
              &budget->requests_per_minute);
  fields.Read("tokens_per_day", 1, kTokensMax, &budget->tokens_per_day);
  fields.Read("cost_per_day", 0, kCostMax, &budget->cost_per_day);
  fields.Read("prompt_cost_per_million", 0, kCostMax,
              &budget->prompt_cost_per_million);
  fields.Read("completion_cost_per_million", 0, kCostMax,
              &budget->completion_cost_per_million);
  if (!fields.Has("cost_per_day")) return;
  fields.Require({"prompt_cost_per_million", "completion_cost_per_million"});
  if (budget->cost_per_day == 0) {
    fields.Fail("cost_per_day", "expected more than 0");
  }
}

void ReadBreaker(const YAML::Node& node, const std::string& where,
                 absl::Status* status, BreakerOptions* breaker) {
  YamlFields fields(node, where, {"failures", "open_ms"}, status);
  int64_t failures = breaker->failures;
  fields.Read("failures", 1, 1'000'000, &failures);
  breaker->failures = static_cast<int>(failures);
  ReadMilliseconds(fields, "open_ms", &breaker->open);
}

}  // namespace

void ReadName(YamlFields& fields, std::string* name) {
  fields.Read("name", name);
  if (fields.ok() && !IsName(*name)) {
    fields.Fail("name",
                "expected a lower-case letter, then up to 62 of a-z 0-9 _ -");
  }
}

UpstreamConfig ReadUpstream(const YAML::Node& node, const std::string& where,
                            const std::filesystem::path& folder,
                            absl::Status* status) {
  UpstreamConfig upstream;
  YamlFields fields(node, where,
                    {"name", "base_url", "model", "api_key_file", "ca_file",
                     "connect_timeout_ms", "request_timeout_ms",
                     "response_bytes_max", "budget", "breaker"},
                    status);
  fields.Require({"name", "base_url", "model"});
  ReadName(fields, &upstream.name);
  if (upstream.name == kLocalTarget) {
    fields.Fail("name", "local is the inference server");
  }
  fields.Read("base_url", &upstream.base_url);
  CheckUrl(fields, &upstream.base_url);
  fields.Read("model", &upstream.model);
  ReadKey(fields, folder, &upstream.api_key);
  fields.Read("ca_file", &upstream.ca_file);
  if (!upstream.ca_file.empty()) {
    upstream.ca_file = folder / upstream.ca_file;
    if (!std::filesystem::is_regular_file(upstream.ca_file)) {
      fields.Fail("ca_file", "there is no such file");
    }
  }
  ReadMilliseconds(fields, "connect_timeout_ms", &upstream.connect_timeout);
  ReadMilliseconds(fields, "request_timeout_ms", &upstream.request_timeout);
  int64_t bytes = static_cast<int64_t>(upstream.response_bytes_max);
  fields.Read("response_bytes_max", 1, 1 << 30, &bytes);
  upstream.response_bytes_max = static_cast<size_t>(bytes);
  if (fields.Has("budget")) {
    ReadBudget(fields.Find("budget"), absl::StrCat(where, ", budget"), status,
               &upstream.budget);
  }
  if (fields.Has("breaker")) {
    ReadBreaker(fields.Find("breaker"), absl::StrCat(where, ", breaker"),
                status, &upstream.breaker);
  }
  return upstream;
}

}  // namespace onegrid::gateway
