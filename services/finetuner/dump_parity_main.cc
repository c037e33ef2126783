// Writes what training parity is checked on: the adapter, the loss and every
// LoRA gradient of one batch, as safetensors. The adapter is --adapter, or
// random with B not zero, so that the gradients of A do not vanish.
//
// File: PEFT names with the adapter, "grad." + the same names with gradients of
// the mean loss per label; tokens I32 [T] of all examples, segment_starts I64
// [examples + 1], completion_starts I64 [examples], counted within an example;
// metadata: loss (nats), adapter_config (PEFT's).
#include <ATen/CPUGeneratorImpl.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/adapter_files.h"
#include "services/common/error_info.h"
#include "services/finetuner/example_reader.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/initial_adapter.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/objectives.h"
#include "services/finetuner/tensor_file.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, base, "", "On-grid GGUF.");
ABSL_FLAG(std::string, examples, "",
          "JSONL whose first examples are the batch.");
ABSL_FLAG(int64_t, count, 4,
          "Examples in the batch, packed into one sequence.");
ABSL_FLAG(int64_t, rank, 16, "Rank of the adapter; alpha is twice that.");
ABSL_FLAG(std::string, lora_pattern, "",
          "Linears (a module pattern) with a quarter of --rank.");
ABSL_FLAG(bool, use_rslora, false, "Scale by alpha / sqrt(rank).");
ABSL_FLAG(std::string, adapter, "",
          "LoRA from elsewhere, a PEFT folder or a GGUF, whose shape counts.");
ABSL_FLAG(std::string, precision, "f32", "f32 or bf16.");
ABSL_FLAG(std::string, out, "", "Safetensors file to write.");

namespace onegrid::finetuner {
namespace {

constexpr uint64_t kSeed = 7;
constexpr double kBDeviation = 0.02;

absl::Status WriteGradients(const GridCheckpoint& checkpoint,
                            const LoraAdapter& adapter,
                            const PackedSequence& sequence,
                            const std::vector<int64_t>& completion_starts,
                            double loss, const std::string& path) {
  TensorFileWriter writer;
  RETURN_IF_ERROR(
      writer.Add("segment_starts", at::tensor(sequence.segment_starts)));
  RETURN_IF_ERROR(
      writer.Add("completion_starts", at::tensor(completion_starts)));
  RETURN_IF_ERROR(writer.Add("tokens", at::tensor(sequence.tokens)));
  for (const LoraGroup& group : adapter.groups()) {
    int64_t row = 0;
    for (const LoraLinearParameters& member : group.members) {
      const std::string stem = absl::StrCat(
          "base_model.model.",
          checkpoint.specs[static_cast<size_t>(member.linear)].hf_name);
      const int64_t rank = member.a.size(0);
      const std::string a = stem + ".lora_A.weight";
      const std::string b = stem + ".lora_B.weight";
      RETURN_IF_ERROR(writer.Add(a, member.a));
      RETURN_IF_ERROR(writer.Add(b, member.b));
      RETURN_IF_ERROR(
          writer.Add("grad." + a, group.grad_a.narrow(0, row, rank)));
      RETURN_IF_ERROR(writer.Add("grad." + b, member.grad_b));
      row += rank;
    }
  }
  writer.SetMetadata({{"loss", absl::StrFormat("%.17g", loss)},
                      {"adapter_config", adapter.ConfigJson("base")}});
  return writer.WriteTo(path);
}

absl::StatusOr<LoraAdapter> RandomAdapter(const GridCheckpoint& checkpoint) {
  LoraOptions options;
  options.rank = absl::GetFlag(FLAGS_rank);
  options.alpha = 2.0 * static_cast<double>(options.rank);
  options.use_rslora = absl::GetFlag(FLAGS_use_rslora);
  if (const std::string modules = absl::GetFlag(FLAGS_lora_pattern);
      !modules.empty()) {
    options.patterns = {{modules, options.rank / 4, 0}};
  }
  ASSIGN_OR_RETURN(LoraAdapter adapter,
                   LoraAdapter::Create(checkpoint.specs, options, kSeed));
  at::Generator random = at::detail::createCPUGenerator(kSeed + 1);
  for (const LoraGroup& group : adapter.groups()) {
    for (const LoraLinearParameters& member : group.members) {
      at::Tensor b = member.b;
      b.normal_(0, kBDeviation, random);
    }
  }
  return adapter;
}

absl::StatusOr<LoraAdapter> MakeAdapter(const GridCheckpoint& checkpoint) {
  const std::string path = absl::GetFlag(FLAGS_adapter);
  if (path.empty()) return RandomAdapter(checkpoint);
  ASSIGN_OR_RETURN(const common::AdapterFiles files,
                   common::FindAdapterFiles(path));
  LoraOptions options;
  options.rank = 0;
  options.alpha = 0;
  return LoadInitialAdapter(files,
                            model::ArchitectureName(checkpoint.config.family),
                            checkpoint.specs, options);
}

absl::Status Dump() {
  const int64_t count = absl::GetFlag(FLAGS_count);
  ASSIGN_OR_RETURN(const auto file,
                   model::GgufFile::Open(absl::GetFlag(FLAGS_base)));
  ASSIGN_OR_RETURN(const GridCheckpoint checkpoint, LoadGridCheckpoint(*file));
  ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::FromGguf(*file));
  ASSIGN_OR_RETURN(
      const std::vector<TokenizedExample> examples,
      ReadExamples(absl::GetFlag(FLAGS_examples), *tokenizer, count));
  PackedSequence sequence;
  std::vector<int64_t> completion_starts;
  for (size_t i = 0; i < examples.size(); ++i) {
    AppendSegment(examples[i], static_cast<int64_t>(i),
                  static_cast<int64_t>(examples[i].tokens.size()), &sequence);
    completion_starts.push_back(examples[i].labels.front().begin);
  }
  const GemmaModel model(
      MakeSharedWeights(checkpoint, sequence.size()), checkpoint.linears,
      absl::GetFlag(FLAGS_precision) == "bf16" ? at::kBFloat16 : at::kFloat);
  ASSIGN_OR_RETURN(LoraAdapter adapter, MakeAdapter(checkpoint));
  AdapterTunable tunable(model, &adapter, {});
  tunable.Refresh();
  const int64_t labels = sequence.label_count();
  const double sum =
      tunable.AddGradients(sequence, labels, nullptr).cross_entropy;
  return WriteGradients(checkpoint, adapter, sequence, completion_starts,
                        sum / static_cast<double>(labels),
                        absl::GetFlag(FLAGS_out));
}

}  // namespace
}  // namespace onegrid::finetuner

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = onegrid::finetuner::Dump();
  if (status.ok()) return 0;
  std::fprintf(stderr, "dump_parity: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
