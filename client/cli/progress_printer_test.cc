#include "client/cli/progress_printer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace onegrid::cli {
namespace {

v1::Event Running(int step) {
  v1::Event event;
  event.set_resource("tuningJobs/t");
  event.set_state(v1::RUNNING);
  event.mutable_progress()->set_stage("learn");
  event.mutable_progress()->set_step(step);
  event.mutable_progress()->set_total_steps(100);
  event.mutable_progress()->mutable_eta()->set_seconds(200);
  (*event.mutable_progress()->mutable_metrics())["loss"] = 0.25;
  return event;
}

TEST(ProgressPrinterTest, FormatsStepsMetricsAndEta) {
  EXPECT_EQ(FormatProgress(Running(25).progress()),
            "learn 25/100 25% loss=0.25 ETA 3m20s");
}

TEST(ProgressPrinterTest, PlainLinesAreSpacedByTheInterval) {
  std::ostringstream out;
  ProgressPrinter printer(out, /*terminal=*/false, absl::Seconds(10));
  const absl::Time start = absl::UnixEpoch();
  printer.Show(Running(1), start);
  printer.Show(Running(2), start + absl::Seconds(5));
  printer.Show(Running(3), start + absl::Seconds(11));
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(ProgressPrinterTest, TerminalRedrawsOneLine) {
  std::ostringstream out;
  ProgressPrinter printer(out, /*terminal=*/true);
  printer.Show(Running(1), absl::UnixEpoch());
  printer.Show(Running(50), absl::UnixEpoch());
  printer.Finish();
  EXPECT_THAT(out.str(), testing::HasSubstr("\r"));
  EXPECT_THAT(out.str(), testing::HasSubstr("[############------------]"));
}

}  // namespace
}  // namespace onegrid::cli
