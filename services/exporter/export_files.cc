#include "services/exporter/export_files.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/exporter/ct_export.h"
#include "services/exporter/equivalence.h"
#include "services/exporter/gguf_export.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/model_card.h"
#include "services/exporter/modelfile.h"
#include "services/exporter/peft_export.h"
#include "services/model/adapter.h"
#include "services/model/chat_pieces.h"
#include "services/model/gemma_config.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::exporter {
namespace {

constexpr char kLoraName[] = "adapter.gguf";

bool IsMerged(v1::ExportFormat format) {
  return format == v1::GGUF || format == v1::COMPRESSED_TENSORS;
}

class Exporter {
 public:
  Exporter(const ExportInputs& inputs, const std::string& out,
           const ProgressFn& progress)
      : inputs_(inputs), out_(out), progress_(progress) {}

  absl::StatusOr<ExportOutputs> Run();

 private:
  absl::Status Open(const std::vector<v1::ExportFormat>& formats);
  absl::StatusOr<WrittenFormat> Write(v1::ExportFormat format);
  absl::Status Compare(const WrittenFormat& written,
                       v1::EquivalenceReport* report);
  // Adds the texts for people and for Ollama; `tensors` and `bit_exact` are
  // what Compare counted.
  absl::Status Describe(int64_t tensors, int64_t bit_exact,
                        WrittenFormat* written);
  absl::StatusOr<PromptStyle> StyleOfPrompts() const;

  const ExportInputs& inputs_;
  const std::string& out_;
  const ProgressFn& progress_;
  std::unique_ptr<GridModel> grid_;
  std::unique_ptr<model::Adapter> adapter_;  // null if no format needs it
  std::string base_sha256_;
};

absl::Status Exporter::Open(const std::vector<v1::ExportFormat>& formats) {
  for (const v1::ExportFormat format : formats) {
    if (format == v1::EXPORT_FORMAT_UNSPECIFIED ||
        !v1::ExportFormat_IsValid(format)) {
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "UNKNOWN_FORMAT",
          absl::StrCat("unknown export format ", static_cast<int>(format)));
    }
  }
  if (inputs_.max_shard_bytes < 0) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_SHARD_SIZE",
        absl::StrCat("max_shard_bytes is ", inputs_.max_shard_bytes,
                     ", expected 0 or more"));
  }
  ASSIGN_OR_RETURN(grid_, GridModel::Open(inputs_.base, inputs_.folded));
  const bool merged = std::any_of(formats.begin(), formats.end(), IsMerged);
  if (merged && inputs_.folded.empty() && !inputs_.untuned) {
    return common::MakeError(absl::StatusCode::kFailedPrecondition,
                             "NOT_FOLDED",
                             "a merged format needs a folded checkpoint, and "
                             "the tuning job made none");
  }
  if (!std::all_of(formats.begin(), formats.end(), IsMerged)) {
    ASSIGN_OR_RETURN(adapter_, model::Adapter::OpenPeft(inputs_.adapter,
                                                        inputs_.adapter_config,
                                                        grid_->linears()));
  }
  return absl::OkStatus();
}

absl::StatusOr<WrittenFormat> Exporter::Write(v1::ExportFormat format) {
  WrittenFormat written;
  written.format = format;
  written.folder = absl::StrCat(
      out_, "/", absl::AsciiStrToLower(v1::ExportFormat_Name(format)));
  const std::string& folder = written.folder;
  RETURN_IF_ERROR(common::MakeFolder(folder));
  switch (format) {
    case v1::GGUF: {
      ASSIGN_OR_RETURN(
          written.files,
          WriteMergedGguf(*grid_, folder, inputs_.max_shard_bytes, progress_));
      break;
    }
    case v1::LORA_GGUF:
      written.files = {kLoraName};
      RETURN_IF_ERROR(WriteLoraGguf(*grid_, *adapter_, inputs_.base_name,
                                    absl::StrCat(folder, "/", kLoraName)));
      break;
    case v1::COMPRESSED_TENSORS: {
      ASSIGN_OR_RETURN(written.files,
                       WriteCompressedTensors(*grid_, folder,
                                              inputs_.max_shard_bytes > 0
                                                  ? inputs_.max_shard_bytes
                                                  : kCtShardBytesDefault,
                                              progress_));
      break;
    }
    case v1::PEFT: {
      ASSIGN_OR_RETURN(written.files,
                       WritePeft(*adapter_, inputs_.base_name, folder));
      break;
    }
    default:
      return absl::InternalError("Open lets no other format pass");
  }
  return written;
}

absl::Status Exporter::Compare(const WrittenFormat& written,
                               v1::EquivalenceReport* report) {
  const std::string& folder = written.folder;
  switch (written.format) {
    case v1::GGUF:
      // The reader finds the other shards by the first.
      return CompareMergedGguf(*grid_,
                               absl::StrCat(folder, "/", written.files[0]),
                               progress_, report);
    case v1::COMPRESSED_TENSORS:
      return CompareCompressedTensors(*grid_, folder, progress_, report);
    case v1::LORA_GGUF:
      return CompareLoraGguf(*adapter_, absl::StrCat(folder, "/", kLoraName),
                             report);
    default:
      return ComparePeft(*adapter_, folder, report);
  }
}

// Raw prompts are what a model gets whose training data had no conversation, or
// whose vocabulary has no marks of turns.
absl::StatusOr<PromptStyle> Exporter::StyleOfPrompts() const {
  const v1::Dataset& dataset = inputs_.origin.dataset();
  if (!dataset.name().empty() && dataset.train().conversations() == 0) {
    return PromptStyle::kRaw;
  }
  ASSIGN_OR_RETURN(const model::Vocabulary vocabulary,
                   model::VocabularyFromGguf(grid_->base()));
  const auto has_marks = [&](model::ChatFormat format) {
    const model::TurnMarks marks = model::RulesOf(format).marks;
    return std::any_of(
        vocabulary.tokens.begin(), vocabulary.tokens.end(),
        [&](const auto& token) { return token.text == marks.start; });
  };
  if (has_marks(model::ChatFormat::kGemma4)) return PromptStyle::kGemma4Chat;
  if (has_marks(model::ChatFormat::kGemma3)) return PromptStyle::kGemma3Chat;
  return PromptStyle::kRaw;
}

absl::Status Exporter::Describe(int64_t tensors, int64_t bit_exact,
                                WrittenFormat* written) {
  if (written->format == v1::GGUF) {
    ASSIGN_OR_RETURN(const PromptStyle style, StyleOfPrompts());
    RETURN_IF_ERROR(common::WriteFileAtomic(
        absl::StrCat(written->folder, "/Modelfile"),
        OllamaModelfile(
            written->files, style,
            grid_->config().family == model::GemmaFamily::kGemma4)));
    written->files.emplace_back("Modelfile");
  }
  CardInput card;
  card.format = written->format;
  card.files = written->files;
  card.base_name = inputs_.base_name;
  card.base_sha256 = base_sha256_;
  card.tuned = !inputs_.untuned;
  card.origin = inputs_.origin;
  card.tensors = tensors;
  card.tensors_bit_exact = bit_exact;
  RETURN_IF_ERROR(common::WriteFileAtomic(
      absl::StrCat(written->folder, "/README.md"), ModelCard(*grid_, card)));
  written->files.emplace_back("README.md");
  return absl::OkStatus();
}

absl::StatusOr<ExportOutputs> Exporter::Run() {
  std::vector<v1::ExportFormat> formats = inputs_.formats;
  if (formats.empty()) {
    formats = {v1::GGUF, v1::COMPRESSED_TENSORS, v1::LORA_GGUF, v1::PEFT};
  }
  RETURN_IF_ERROR(Open(formats));
  ASSIGN_OR_RETURN(base_sha256_, common::Sha256OfFile(inputs_.base));
  ExportOutputs outputs;
  for (const v1::ExportFormat format : formats) {
    ASSIGN_OR_RETURN(WrittenFormat written, Write(format));
    v1::EquivalenceReport& report = outputs.equivalence;
    const int64_t tensors = report.tensors();
    const int64_t bit_exact = report.tensors_bit_exact();
    RETURN_IF_ERROR(Compare(written, &report));
    // Before a card says so.
    RETURN_IF_ERROR(RequireEquivalence(report));
    RETURN_IF_ERROR(Describe(report.tensors() - tensors,
                             report.tensors_bit_exact() - bit_exact, &written));
    outputs.formats.push_back(std::move(written));
  }
  const std::string& checkpoint = !inputs_.folded.empty() ? inputs_.folded
                                  : inputs_.untuned       ? inputs_.base
                                                          : inputs_.adapter;
  ASSIGN_OR_RETURN(*outputs.equivalence.mutable_checkpoint_sha256(),
                   common::Sha256OfFile(checkpoint));
  return outputs;
}

}  // namespace

absl::StatusOr<ExportOutputs> ExportFiles(const ExportInputs& inputs,
                                          const std::string& out,
                                          const ProgressFn& progress) {
  return Exporter(inputs, out, progress).Run();
}

}  // namespace onegrid::exporter
