#include "services/common/log.h"

#include <unistd.h>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace onegrid::common {
namespace {

std::string Quoted(absl::string_view value) {
  if (!value.empty() &&
      value.find_first_of(" \"=\n\r\t\\") == absl::string_view::npos) {
    return std::string(value);
  }
  return absl::StrCat("\"", absl::CEscape(value), "\"");
}

void Write(absl::string_view level, absl::string_view event,
           std::initializer_list<LogField> fields) {
  std::string line =
      absl::StrCat("time=",
                   absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                                    absl::UTCTimeZone()),
                   " level=", level, " event=", event);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=", Quoted(field.value));
  }
  line.push_back('\n');
  // A log line that cannot be written has nowhere to be reported.
  [[maybe_unused]] const ssize_t written =
      ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void LogInfo(absl::string_view event, std::initializer_list<LogField> fields) {
  Write("info", event, fields);
}

void LogWarning(absl::string_view event,
                std::initializer_list<LogField> fields) {
  Write("warning", event, fields);
}

void LogError(absl::string_view event, std::initializer_list<LogField> fields) {
  Write("error", event, fields);
}

}  // namespace onegrid::common
