// Shows events of jobs: a bar on a terminal, plain lines otherwise.
#ifndef CLIENT_CLI_PROGRESS_PRINTER_H_
#define CLIENT_CLI_PROGRESS_PRINTER_H_

#include <cstdint>
#include <map>
#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::cli {

// Formats a progress report: "learn 120/500 24% loss=0.31 ETA 3m20s".
std::string FormatProgress(const v1::Progress& progress);

// Not thread-safe.
class ProgressPrinter {
 public:
  // Prints to `out`, which must outlive this object. With `terminal`, the
  // current line is redrawn in place; otherwise a line is printed when stage
  // or state changes and every `interval` in between.
  ProgressPrinter(std::ostream& out, bool terminal,
                  absl::Duration interval = absl::Seconds(10));

  void Show(const v1::Event& event, absl::Time now);
  // Ends a line that is being redrawn. Call before other output.
  void Finish();

 private:
  struct Shown {
    std::string stage;
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    absl::Time time = absl::InfinitePast();
  };

  void Redraw(const std::string& line);

  std::ostream& out_;
  const bool terminal_;
  const absl::Duration interval_;
  std::map<std::string, Shown> shown_;
  bool line_open_ = false;
};

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_PROGRESS_PRINTER_H_
