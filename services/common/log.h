// One-line key=value logs on stderr. Never log weights, prompts or tokens.
#ifndef SERVICES_COMMON_LOG_H_
#define SERVICES_COMMON_LOG_H_

#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace onegrid::common {

// One key=value pair. The value is anything absl::StrCat takes.
struct LogField {
  template <typename T>
  LogField(absl::string_view k, const T& v) : key(k), value(absl::StrCat(v)) {}
  absl::string_view key;
  std::string value;
};

// Writes `time=... level=... event=... key=value ...` with one write(2), so
// that lines of several threads and processes do not mix. `event` is a short
// snake_case word; values with spaces or quotes are quoted. Thread-safe.
void LogInfo(absl::string_view event,
             std::initializer_list<LogField> fields = {});
void LogWarning(absl::string_view event,
                std::initializer_list<LogField> fields = {});
void LogError(absl::string_view event,
              std::initializer_list<LogField> fields = {});

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_LOG_H_
