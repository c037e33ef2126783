#include "services/exporter/hf_importer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/exporter/base_builder.h"
#include "services/exporter/hf_matrices.h"
#include "services/model/gguf_reader.h"
#include "services/model/hf_checkpoint.h"
#include "services/model/hf_model_config.h"
#include "services/model/hf_vocabulary.h"
#include "services/model/mapped_file.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tensor_names.h"
#include "services/model/tokenizer_digest.h"

namespace onegrid::exporter {
namespace {

using model::HfCheckpoint;

using Metadata = std::map<std::string, model::GgufValue>;

struct Tokenizer {
  Metadata metadata;
  std::string sha256;
};

absl::StatusOr<Tokenizer> TokenizerOfGguf(const std::string& path,
                                          int64_t vocab_size) {
  ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
  ASSIGN_OR_RETURN(const model::Vocabulary vocabulary,
                   model::VocabularyFromGguf(*file));
  const auto tokens = static_cast<int64_t>(vocabulary.tokens.size());
  if (tokens != vocab_size) {
    return model::CorruptFile(
        path, absl::StrCat("has ", tokens, " tokens, the embedding ",
                           vocab_size, " rows"));
  }
  Tokenizer tokenizer{{}, model::TokenizerDigest(vocabulary)};
  for (const auto& [key, value] : file->metadata()) {
    if (absl::StartsWith(key, "tokenizer.")) tokenizer.metadata[key] = value;
  }
  return tokenizer;
}

absl::StatusOr<Tokenizer> TokenizerOf(const HfCheckpoint& checkpoint,
                                      const ImportOptions& options) {
  const int64_t vocab_size = checkpoint.config().vocab_size;
  if (!options.tokenizer_from.empty()) {
    return TokenizerOfGguf(options.tokenizer_from, vocab_size);
  }
  const auto read = model::ReadHfVocabulary(checkpoint.folder(), vocab_size);
  if (absl::IsNotFound(read.status())) {
    return common::MakeError(
        absl::StatusCode::kNotFound, "MISSING_TOKENIZER",
        absl::StrCat(checkpoint.folder(),
                     ": no tokenizer.model and no tokenizer.json; name a GGUF "
                     "of the same vocabulary to take the tokenizer from"),
        {{"path", checkpoint.folder()}});
  }
  RETURN_IF_ERROR(read.status());
  return Tokenizer{model::TokenizerMetadata(*read),
                   model::TokenizerDigest(read->vocabulary)};
}

// In GGUF's convention.
absl::StatusOr<std::vector<float>> NormValues(const HfCheckpoint& checkpoint,
                                              const model::NormSpec& spec) {
  if (spec.hf_name.empty()) return model::RopeFactors(checkpoint.config());
  ASSIGN_OR_RETURN(std::vector<float> values, checkpoint.Values(spec.hf_name));
  for (float& value : values) value += spec.gguf_offset;
  return values;
}

absl::Status AddTensors(const HfCheckpoint& checkpoint,
                        const ImportOptions& options, BaseBuilder& builder) {
  const model::GemmaConfig& config = checkpoint.config();
  const auto linears = model::GemmaLinears(config);
  const auto norms = model::GemmaNorms(config);
  const auto tables = model::GemmaTables(config);
  for (const model::TableSpec& spec : tables) {
    RETURN_IF_ERROR(AddHfTable(checkpoint, spec, options.threads, builder));
  }
  for (const model::NormSpec& spec : norms) {
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     NormValues(checkpoint, spec));
    RETURN_IF_ERROR(builder.AddNorm(spec, values));
  }
  for (const model::LinearSpec& spec : linears) {
    RETURN_IF_ERROR(AddHfLinear(checkpoint, spec, options.threads, builder));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ImportReport> ImportHfFolder(const std::string& source,
                                                const std::string& out,
                                                const ImportOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HfCheckpoint> checkpoint,
                   HfCheckpoint::Open(source));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, TokenizerOf(*checkpoint, options));
  Metadata metadata = model::GemmaMetadata(checkpoint->config());
  metadata.merge(BaseFileType());
  metadata.merge(std::move(tokenizer.metadata));
  BaseBuilder builder;
  for (const auto& [key, value] : metadata) builder.writer().Set(key, value);
  const auto total =
      static_cast<int64_t>(model::GemmaTables(checkpoint->config()).size() +
                           model::GemmaLinears(checkpoint->config()).size());
  int64_t done = 0;
  builder.SetProgress([&]() -> absl::Status {
    return options.progress ? options.progress("import", ++done, total)
                            : absl::OkStatus();
  });
  RETURN_IF_ERROR(AddTensors(*checkpoint, options, builder));
  ASSIGN_OR_RETURN(
      v1::ImportReport report,
      builder.Finish(out, model::ArchitectureName(checkpoint->config().family),
                     tokenizer.sha256));
  report.set_static_scales_unused(checkpoint->static_scales());
  if (checkpoint->static_scales() > 0) {
    common::LogWarning(
        "static_scales_not_used",
        {{"folder", source}, {"scales", checkpoint->static_scales()}});
  }
  return report;
}

}  // namespace onegrid::exporter
