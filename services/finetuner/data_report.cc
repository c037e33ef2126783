#include "services/finetuner/data_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace onegrid::finetuner {
namespace {

using nlohmann::ordered_json;

ordered_json ToJson(const LineList& list) {
  return {{"count", list.count}, {"lines", list.lines}};
}

ordered_json ToJson(const SplitReport& split) {
  ordered_json problems = ordered_json::array();
  for (const auto& [problem, list] : split.dropped) {
    ordered_json entry = {{"problem", problem}};
    entry.update(ToJson(list));
    problems.push_back(std::move(entry));
  }
  return {
      {"format", split.format},
      {"templates", split.templates},
      {"records", split.records},
      {"examples", split.examples},
      {"tokens", split.tokens},
      {"label_tokens", split.label_tokens},
      {"record_tokens",
       {{"p50", Quantile(split.record_tokens, 0.50)},
        {"p90", Quantile(split.record_tokens, 0.90)},
        {"p99", Quantile(split.record_tokens, 0.99)},
        {"max", Quantile(split.record_tokens, 1)}}},
      {"truncated", ToJson(split.truncated)},
      {"windowed", ToJson(split.windowed)},
      {"dropped", {{"count", split.dropped_count()}, {"problems", problems}}}};
}

}  // namespace

void LineList::Add(int64_t line) {
  ++count;
  if (lines.size() < kListedMax) lines.push_back(line);
}

int64_t SplitReport::dropped_count() const {
  int64_t count = 0;
  for (const auto& [problem, list] : dropped) count += list.count;
  return count;
}

int64_t Quantile(absl::Span<const int64_t> values, double q) {
  if (values.empty()) return 0;
  std::vector<int64_t> sorted(values.begin(), values.end());
  const auto rank =
      static_cast<size_t>(std::ceil(q * static_cast<double>(sorted.size())));
  const size_t index = std::clamp<size_t>(rank, 1, sorted.size()) - 1;
  std::nth_element(sorted.begin(),
                   sorted.begin() + static_cast<std::ptrdiff_t>(index),
                   sorted.end());
  return sorted[index];
}

std::string DataReport::ToJson() const {
  ordered_json object = {{"sequence_tokens", sequence_tokens},
                         {"train_on", train_on}};
  for (const auto& [name, split] : splits) {
    object["splits"][name] = finetuner::ToJson(split);
  }
  return object.dump(2) + "\n";
}

}  // namespace onegrid::finetuner
