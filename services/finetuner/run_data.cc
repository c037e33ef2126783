#include "services/finetuner/run_data.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/model_grids.h"
#include "services/finetuner/plan_choice.h"
#include "services/finetuner/prepared_data.h"
#include "services/finetuner/probe.h"
#include "services/finetuner/ptq.h"

namespace onegrid::finetuner {
namespace {

// Puts the base, or its float weights if they are given, on the plan's grids.
absl::Status ApplyPlan(const TuningInputs& inputs, const TuningOptions& options,
                       const PlanProgress& progress, RunData* data) {
  const std::string& source =
      inputs.float_base.empty() ? inputs.base : inputs.float_base;
  ASSIGN_OR_RETURN(const FloatCheckpoint floats,
                   LoadFloatsOf(source, data->checkpoint.specs));
  std::vector<int64_t> order =
      ShuffledOrder(static_cast<int64_t>(data->train.size()), options.seed + 1);
  order.resize(
      std::min(order.size(), static_cast<size_t>(options.fold_examples)));
  const std::vector<PackedSequence> calibration =
      Pack(data->train, order, options.sequence_tokens);
  PlanChoiceOptions how;
  how.feedback = true;
  ASSIGN_OR_RETURN(
      const PlanChoice choice,
      ChoosePlan(options.grid.plan, floats, calibration, how, progress));
  ASSIGN_OR_RETURN(const ModelGrids grids, GridsOf(choice.plan, floats.config));
  ASSIGN_OR_RETURN(
      QuantizedModel quantized,
      Quantize(floats, grids, PtqMethod::kGptq, calibration, progress));
  data->checkpoint.linears = std::move(quantized.linears);
  data->checkpoint.embedding = std::move(quantized.embedding);
  data->plan = choice.plan.ToText();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunData> LoadRunData(const TuningInputs& inputs,
                                    const TuningOptions& options,
                                    const PlanProgress& progress) {
  RunData data;
  ASSIGN_OR_RETURN(data.file, model::GgufFile::Open(inputs.base));
  ASSIGN_OR_RETURN(data.checkpoint, LoadGridCheckpoint(*data.file));
  ASSIGN_OR_RETURN(data.tokenizer, model::Tokenizer::FromGguf(*data.file));
  std::vector<SplitFile> files = {
      {"train", inputs.train, options.max_examples, /*cut=*/true},
      {"test", inputs.test, options.max_eval_examples, /*cut=*/false}};
  if (!inputs.validation.empty()) {
    files.push_back({"validation", inputs.validation,
                     std::max(kProbeExamples, options.eval_examples),
                     /*cut=*/false});
  }
  ASSIGN_OR_RETURN(PreparedData prepared,
                   PrepareDataset(files, options.data, *data.tokenizer,
                                  options.sequence_tokens));
  data.train = std::move(prepared.splits[0]);
  data.test = std::move(prepared.splits[1]);
  if (files.size() > 2) data.validation = std::move(prepared.splits[2]);
  data.report = std::move(prepared.report);
  if (!options.grid.plan.empty()) {
    RETURN_IF_ERROR(ApplyPlan(inputs, options, progress, &data));
  }
  data.longest = std::max(options.sequence_tokens, kProbeWindow);
  for (const auto* split : {&data.test, &data.validation}) {
    for (const TokenizedExample& example : *split) {
      data.longest =
          std::max(data.longest, static_cast<int64_t>(example.tokens.size()));
    }
  }
  data.shared = MakeSharedWeights(data.checkpoint, data.longest);
  return data;
}

absl::StatusOr<FloatCheckpoint> LoadFloatsOf(
    const std::string& path, absl::Span<const model::LinearSpec> linears) {
  ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
  ASSIGN_OR_RETURN(FloatCheckpoint floats, LoadFloatCheckpoint(*file));
  const auto same = [](const model::LinearSpec& a, const model::LinearSpec& b) {
    return a.gguf_name == b.gguf_name && a.in == b.in && a.out == b.out;
  };
  const auto part =
      std::mismatch(linears.begin(), linears.end(), floats.specs.begin(),
                    floats.specs.end(), same);
  if (part.first == linears.end() && part.second == floats.specs.end()) {
    return floats;
  }
  const model::LinearSpec& odd =
      part.first != linears.end() ? *part.first : *part.second;
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "FLOAT_BASE_MISMATCH",
      absl::StrCat(path, ": ", odd.gguf_name,
                   " is not in both it and the base, of one shape"),
      {{"path", path}, {"tensor", odd.gguf_name}});
}

absl::StatusOr<std::unique_ptr<GemmaModel>> LoadFloatModel(
    const std::string& path, const model::GemmaConfig& config, int64_t longest,
    at::ScalarType compute_type) {
  ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
  ASSIGN_OR_RETURN(const FloatCheckpoint checkpoint,
                   LoadFloatCheckpoint(*file));
  if (checkpoint.config.vocab_size != config.vocab_size) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "TEACHER_MISMATCH",
        absl::StrCat(path, ": a vocabulary of ", checkpoint.config.vocab_size,
                     " tokens, the base has ", config.vocab_size),
        {{"found", absl::StrCat(checkpoint.config.vocab_size)},
         {"expected", absl::StrCat(config.vocab_size)}});
  }
  return std::make_unique<GemmaModel>(MakeSharedWeights(checkpoint, longest),
                                      checkpoint.linears, compute_type);
}

}  // namespace onegrid::finetuner
