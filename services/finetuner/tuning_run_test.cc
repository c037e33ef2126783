// What a run refuses before it reads anything.
#include "services/finetuner/tuning_run.h"

#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

class NoHost : public TuningHost {
 public:
  bool cancelled() override { return false; }
  void OnProgress(const TuningProgress&) override {}
  absl::Status OnCheckpoint(const TuningProgress&,
                            const std::string&) override {
    return absl::OkStatus();
  }
};

// The field that a run with these inputs complains of.
std::string Refused(const TuningInputs& inputs, const TuningOptions& options) {
  NoHost host;
  const absl::Status status =
      RunTuning(inputs, options, testing::TempDir(), &host).status();
  return common::ErrorMetadata(status)["field"];
}

TEST(RunTuningTest, LossesOverAPartNeedATeacher) {
  constexpr char kField[] = "distillation.vocabulary_top";
  TuningInputs inputs;
  TuningOptions options;
  options.mode = TuningMode::kFullQat;
  options.distillation.vocabulary_top = 64;
  EXPECT_EQ(Refused(inputs, options), kField);
  // There it fails for want of files only.
  inputs.float_base = "/nonexistent.gguf";
  EXPECT_NE(Refused(inputs, options), kField);
  options.distillation.kl = 0;
  EXPECT_EQ(Refused(inputs, options), kField);
  // The float base is no teacher of an adapter.
  options.distillation.kl = 1;
  options.mode = TuningMode::kQloraQat;
  EXPECT_EQ(Refused(inputs, options), kField);
}

}  // namespace
}  // namespace onegrid::finetuner
