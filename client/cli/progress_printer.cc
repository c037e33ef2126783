#include "client/cli/progress_printer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace onegrid::cli {
namespace {

constexpr int kBarCells = 24;

std::string FormatEta(const google::protobuf::Duration& eta) {
  const int64_t seconds = eta.seconds();
  if (seconds >= 3600) {
    return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
  }
  if (seconds >= 60) {
    return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  }
  return absl::StrFormat("%ds", seconds);
}

std::string Bar(const v1::Progress& progress) {
  if (progress.total_steps() <= 0) return "";
  const int64_t filled = std::clamp<int64_t>(
      kBarCells * progress.step() / progress.total_steps(), 0, kBarCells);
  return absl::StrCat("[", std::string(filled, '#'),
                      std::string(kBarCells - filled, '-'), "] ");
}

}  // namespace

std::string FormatProgress(const v1::Progress& progress) {
  std::string text = progress.stage();
  if (progress.total_steps() > 0) {
    absl::StrAppend(
        &text, absl::StrFormat(
                   " %d/%d %.0f%%", progress.step(), progress.total_steps(),
                   100.0 * progress.step() / progress.total_steps()));
  }
  // A std::map, so that the order is the same on every line.
  const std::map<std::string, double> metrics(progress.metrics().begin(),
                                              progress.metrics().end());
  for (const auto& [name, value] : metrics) {
    absl::StrAppend(&text, absl::StrFormat(" %s=%.4g", name, value));
  }
  if (progress.has_eta() && progress.step() < progress.total_steps()) {
    absl::StrAppend(&text, " ETA ", FormatEta(progress.eta()));
  }
  return text;
}

ProgressPrinter::ProgressPrinter(std::ostream& out, bool terminal,
                                 absl::Duration interval)
    : out_(out), terminal_(terminal), interval_(interval) {}

void ProgressPrinter::Show(const v1::Event& event, absl::Time now) {
  Shown& shown = shown_[event.resource()];
  const bool changed = shown.state != event.state() ||
                       shown.stage != event.progress().stage() ||
                       !event.message().empty();
  const bool has_progress = event.has_progress();
  if (terminal_ && !changed && has_progress) {
    Redraw(absl::StrCat("  ", event.resource(), " ", Bar(event.progress()),
                        FormatProgress(event.progress())));
    return;
  }
  if (!changed && now - shown.time < interval_) return;
  shown = {event.progress().stage(), event.state(), now};
  Finish();
  out_ << "  " << event.resource();
  if (!event.message().empty()) {
    out_ << ": " << event.message();
  } else {
    out_ << " " << v1::JobState_Name(event.state());
  }
  if (has_progress && event.state() == v1::RUNNING &&
      !event.progress().stage().empty()) {
    out_ << " " << FormatProgress(event.progress());
  }
  out_ << std::endl;
}

void ProgressPrinter::Redraw(const std::string& line) {
  // Carriage return, text, erase to the end of the line.
  out_ << "\r" << line.substr(0, 118) << "\033[K" << std::flush;
  line_open_ = true;
}

void ProgressPrinter::Finish() {
  if (line_open_) out_ << "\n";
  line_open_ = false;
}

}  // namespace onegrid::cli
