// What was found in the files of a dataset, before anything is trained on it.
#ifndef SERVICES_FINETUNER_DATA_REPORT_H_
#define SERVICES_FINETUNER_DATA_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace onegrid::finetuner {

// Lines of a file that share something, of which the first are listed.
struct LineList {
  static constexpr size_t kListedMax = 20;

  int64_t count = 0;
  std::vector<int64_t> lines;  // From 1; at most kListedMax.

  void Add(int64_t line);
};

// How a split's records became examples.
struct SplitReport {
  std::string format;  // "messages", ...
  // What records were written in, "gemma3" for conversations, otherwise
  // "prompt_completion" or "text", with the SHA-256 that tells it from others.
  std::map<std::string, std::string> templates;
  int64_t records = 0;   // That became examples.
  int64_t examples = 0;  // More than records where text was cut into windows.
  int64_t tokens = 0;    // Of all examples.
  int64_t label_tokens = 0;
  // Left out, by problem.
  std::map<std::string, LineList> dropped;
  // Records that lost their end to fit a sequence.
  LineList truncated;
  // Text records that became more than one window.
  LineList windowed;
  // Tokens of each record as a whole, in order.
  std::vector<int64_t> record_tokens;

  int64_t dropped_count() const;
};

// The value that the share `q`, 0 < q <= 1, of the values does not exceed, by
// nearest rank. 0 for no values.
int64_t Quantile(absl::Span<const int64_t> values, double q);

// One JSON object: sequence_tokens, train_on, and per split the fields above
// with p50, p90, p99 and max of record_tokens.
struct DataReport {
  int64_t sequence_tokens = 0;
  std::string train_on;
  std::map<std::string, SplitReport> splits;  // By name.

  std::string ToJson() const;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_DATA_REPORT_H_
