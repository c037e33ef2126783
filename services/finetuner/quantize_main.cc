// Post-training quantization from files: the export path without training.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <malloc.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/stop_signal.h"
#include "services/common/thread_count.h"
#include "services/finetuner/calibration.h"
#include "services/finetuner/example_reader.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/merge_adapter.h"
#include "services/finetuner/model_grids.h"
#include "services/finetuner/plan_choice.h"
#include "services/finetuner/plan_search.h"
#include "services/finetuner/ptq.h"
#include "services/finetuner/spin_limit.h"
#include "services/finetuner/text_corpus.h"
#include "services/finetuner/text_scores.h"
#include "services/model/gguf_reader.h"
#include "services/model/quant_plan.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, source, "", "GGUF to quantize, of any tensor types.");
ABSL_FLAG(
    std::string, adapter, "",
    "LoRA adapter to merge into the source first: a PEFT folder, or a GGUF "
    "of llama.cpp.");
ABSL_FLAG(std::string, model, "",
          "Compare this GGUF with --source on --evaluate, instead of "
          "quantizing.");
ABSL_FLAG(std::string, plan, "int4",
          "Plan file, int4, mobile_e2b, or auto:BYTES for the best plan whose "
          "matrices take at most that many bytes.");
ABSL_FLAG(std::string, method, "gptq", "rtn, gptq or awq.");
ABSL_FLAG(std::vector<std::string>, calibration, {},
          "Calibration texts, plain (form feeds between documents) or, if the "
          "name ends in .jsonl, a training split.");
ABSL_FLAG(int64_t, calibration_windows, 64,
          "Windows or examples of each calibration file to use; 0: all.");
ABSL_FLAG(int64_t, sensitivity_windows, 6,
          "With auto: calibration windows that each matrix is measured on.");
ABSL_FLAG(std::string, sensitivity, "",
          "With auto: the sensitivity.json of an earlier run with the same "
          "source, method and calibration, instead of measuring again.");
ABSL_FLAG(int64_t, window_tokens, 512, "Tokens of a window of plain text.");
ABSL_FLAG(std::string, evaluate, "",
          "Held-out text, as --calibration: compare with the float model.");
ABSL_FLAG(int64_t, evaluate_windows, 0,
          "Windows of --evaluate to use, evenly spread; 0: all.");
ABSL_FLAG(std::string, out, "",
          "Folder for folded.safetensors, plan.yaml and report.json.");
ABSL_FLAG(int, threads, 0,
          "Compute threads; 0: from affinity and cgroup quota.");

namespace onegrid::finetuner {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "quantize: %s: %s\n",
               common::StatusCodeName(status.code()).c_str(),
               std::string(status.message()).c_str());
  return 1;
}

// Says on stderr how far a stage is; stops on a signal.
std::function<bool(int64_t, int64_t)> Progress(const char* stage) {
  return [stage, start = Clock::now()](int64_t done, int64_t total) {
    std::fprintf(stderr, "%s %lld/%lld seconds=%.0f\n", stage,
                 static_cast<long long>(done), static_cast<long long>(total),
                 SecondsSince(start));
    return !common::StopRequested();
  };
}

// The examples of one file, of which at most `count` spread evenly (0: all).
absl::StatusOr<std::vector<PackedSequence>> ReadSequences(
    const std::string& path, const model::Tokenizer& tokenizer, int64_t count) {
  if (absl::EndsWith(path, ".jsonl")) {
    ASSIGN_OR_RETURN(const std::vector<TokenizedExample> examples,
                     ReadExamples(path, tokenizer, 0));
    return PackSingly(SpreadWindows(examples, count));
  }
  ASSIGN_OR_RETURN(
      const TextSplit split,
      ReadTextCorpus({path}, tokenizer, absl::GetFlag(FLAGS_window_tokens), 0));
  return PackSingly(SpreadWindows(split.train, count));
}

// One run of the tool: each method is one step.
class Run {
 public:
  absl::Status All();

 private:
  absl::Status Load();
  absl::Status Choose();
  absl::Status QuantizeAndSave();
  absl::Status Evaluate();
  absl::Status WriteReport();

  std::string out_;
  FloatCheckpoint checkpoint_;
  std::vector<PackedSequence> calibration_;
  std::vector<PackedSequence> heldout_;
  std::optional<model::QuantPlan> plan_;
  QuantizedModel quantized_;
  nlohmann::json report_;
};

absl::Status Run::Load() {
  out_ = absl::GetFlag(FLAGS_out);
  RETURN_IF_ERROR(common::MakeFolder(out_));
  ASSIGN_OR_RETURN(const std::unique_ptr<model::GgufFile> file,
                   model::GgufFile::Open(absl::GetFlag(FLAGS_source)));
  ASSIGN_OR_RETURN(checkpoint_, LoadFloatCheckpoint(*file));
  if (const std::string adapter = absl::GetFlag(FLAGS_adapter);
      !adapter.empty()) {
    RETURN_IF_ERROR(MergeAdapter(adapter, &checkpoint_));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<model::Tokenizer> tokenizer,
                   model::Tokenizer::FromGguf(*file));
  for (const std::string& path : absl::GetFlag(FLAGS_calibration)) {
    ASSIGN_OR_RETURN(std::vector<PackedSequence> sequences,
                     ReadSequences(path, *tokenizer,
                                   absl::GetFlag(FLAGS_calibration_windows)));
    for (PackedSequence& sequence : sequences) {
      calibration_.push_back(std::move(sequence));
    }
  }
  if (absl::GetFlag(FLAGS_evaluate).empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(heldout_,
                   ReadSequences(absl::GetFlag(FLAGS_evaluate), *tokenizer,
                                 absl::GetFlag(FLAGS_evaluate_windows)));
  return absl::OkStatus();
}

absl::Status Run::Choose() {
  std::string spec = absl::GetFlag(FLAGS_plan);
  if (absl::EndsWith(spec, ".yaml") || absl::StrContains(spec, '/')) {
    ASSIGN_OR_RETURN(spec, common::ReadFile(spec));
  }
  PlanChoiceOptions options;
  options.feedback = absl::GetFlag(FLAGS_method) == "gptq";
  options.measured_sequences = absl::GetFlag(FLAGS_sensitivity_windows);
  const std::string measured = absl::GetFlag(FLAGS_sensitivity);
  if (!measured.empty()) {
    ASSIGN_OR_RETURN(const std::string text, common::ReadFile(measured));
    ASSIGN_OR_RETURN(options.costs, CostsFromJson(text));
  }
  ASSIGN_OR_RETURN(PlanChoice choice,
                   ChoosePlan(spec, checkpoint_, calibration_, options,
                              Progress("sensitivity")));
  plan_ = std::move(choice.plan);
  if (choice.costs.empty()) return absl::OkStatus();
  return common::WriteFileAtomic(out_ + "/sensitivity.json",
                                 CostsToJson(choice.costs));
}

absl::Status Run::QuantizeAndSave() {
  ASSIGN_OR_RETURN(const ModelGrids grids, GridsOf(*plan_, checkpoint_.config));
  ASSIGN_OR_RETURN(const PtqMethod method,
                   PtqMethodByName(absl::GetFlag(FLAGS_method)));
  ASSIGN_OR_RETURN(quantized_, Quantize(checkpoint_, grids, method,
                                        calibration_, Progress("quantize")));
  RETURN_IF_ERROR(
      common::WriteFileAtomic(out_ + "/plan.yaml", plan_->ToText()));
  return SaveQuantized(checkpoint_, quantized_, out_ + "/folded.safetensors");
}

absl::Status Run::Evaluate() {
  if (heldout_.empty()) return absl::OkStatus();
  const int64_t longest = LongestSegment(heldout_);
  FloatCheckpoint values;
  if (const std::string model = absl::GetFlag(FLAGS_model); !model.empty()) {
    ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(model));
    ASSIGN_OR_RETURN(values, LoadFloatCheckpoint(*file));
  } else {
    values = Dequantize(checkpoint_, quantized_);
  }
  const GemmaModel teacher(MakeSharedWeights(checkpoint_, longest),
                           checkpoint_.linears, at::kFloat);
  const GemmaModel student(MakeSharedWeights(values, longest), values.linears,
                           at::kFloat);
  ASSIGN_OR_RETURN(
      const TextScores scores,
      CompareOnText(teacher, student, heldout_, Progress("evaluate")));
  report_["evaluation"] = {{"tokens", scores.tokens},
                           {"float_nats", scores.teacher_nats},
                           {"nats", scores.student_nats},
                           {"excess_nats", scores.excess_nats()},
                           {"float_perplexity", std::exp(scores.teacher_nats)},
                           {"perplexity", std::exp(scores.student_nats)},
                           {"kl", scores.kl}};
  std::printf("%-24s %10s %10s\n", "", "float", "quantized");
  std::printf("%-24s %10.4f %10.4f\n", "nats per token", scores.teacher_nats,
              scores.student_nats);
  std::printf("%-24s %10.3f %10.3f\n", "perplexity",
              std::exp(scores.teacher_nats), std::exp(scores.student_nats));
  std::printf("%-24s %10s %10.5f\n", "KL to float, nats", "", scores.kl);
  return absl::OkStatus();
}

absl::Status Run::WriteReport() {
  if (!plan_.has_value()) {
    return common::WriteFileAtomic(out_ + "/report.json",
                                   report_.dump(2) + "\n");
  }
  const int64_t bytes = model::PlanBytes(*plan_, checkpoint_.config);
  std::printf("%-24s %10s %10lld\n", "bytes of matrices", "",
              static_cast<long long>(bytes));
  report_["method"] = absl::GetFlag(FLAGS_method);
  report_["plan"] = absl::GetFlag(FLAGS_plan);
  report_["bytes"] = bytes;
  return common::WriteFileAtomic(out_ + "/report.json", report_.dump(2) + "\n");
}

absl::Status Run::All() {
  // Unknown names are found before minutes of work.
  RETURN_IF_ERROR(PtqMethodByName(absl::GetFlag(FLAGS_method)).status());
  RETURN_IF_ERROR(Load());
  if (absl::GetFlag(FLAGS_model).empty()) {
    RETURN_IF_ERROR(Choose());
    RETURN_IF_ERROR(QuantizeAndSave());
  } else if (heldout_.empty()) {
    return absl::InvalidArgumentError("--model needs --evaluate");
  }
  RETURN_IF_ERROR(Evaluate());
  return WriteReport();
}

int Main() {
  // As in finetuner_main.cc: activations of megabytes stay on the heap.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  if (absl::GetFlag(FLAGS_source).empty() || absl::GetFlag(FLAGS_out).empty()) {
    return Fail(absl::InvalidArgumentError("name --source and --out"));
  }
  const c10::NoGradGuard no_grad;
  at::set_num_threads(
      common::ChooseThreadCount(absl::GetFlag(FLAGS_threads)).threads);
  common::InstallStopSignal();
  const absl::Status status = Run().All();
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace onegrid::finetuner

int main(int argc, char** argv) {
  onegrid::finetuner::LimitSpinning(argv);
  absl::SetProgramUsageMessage(
      "Puts a float model on the grids of a plan without training.\n"
      "  quantize --source=MODEL.gguf --out=DIR [--plan=int4|auto:BYTES|FILE]\n"
      "      [--method=rtn|gptq|awq] [--calibration=TEXT] [--evaluate=TEXT]");
  absl::ParseCommandLine(argc, argv);
  return onegrid::finetuner::Main();
}
