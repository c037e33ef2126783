#include "services/finetuner/probe.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>

#include "services/common/error_info.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {

std::vector<std::vector<int32_t>> ProbeSequences(
    const model::Tokenizer& tokenizer, absl::string_view text,
    int64_t text_tokens, absl::Span<const TokenizedExample> examples) {
  std::vector<std::vector<int32_t>> sequences;
  const std::vector<int32_t> ids =
      tokenizer.Encode(text, /*add_bos=*/false, /*parse_control=*/false);
  const int64_t count = std::min(text_tokens, static_cast<int64_t>(ids.size()));
  for (int64_t start = 0; start < count; start += kProbeWindow - 1) {
    const int64_t stop = std::min(count, start + kProbeWindow - 1);
    std::vector<int32_t> sequence = {tokenizer.bos()};
    sequence.insert(sequence.end(), ids.begin() + start, ids.begin() + stop);
    sequences.push_back(std::move(sequence));
  }
  for (const TokenizedExample& example :
       examples.subspan(0, std::min<size_t>(examples.size(), kProbeExamples))) {
    sequences.emplace_back(example.tokens.begin(), example.tokens.end() - 1);
  }
  return sequences;
}

Predict PredictInFloat(const GemmaModel& model) {
  return [&model](absl::Span<const int32_t> sequence, int64_t top) {
    PackedSequence packed;
    AppendSegment({{sequence.begin(), sequence.end()}, {}}, 0,
                  static_cast<int64_t>(sequence.size()), &packed);
    const AttentionLayout layout = MakeAttentionLayout(packed);
    std::vector<int64_t> rows(sequence.size() - 1);
    std::iota(rows.begin(), rows.end(), int64_t{0});
    return ScoreTop(model.FinalHidden(model.Forward(packed, layout, {}), rows),
                    model.head(), top);
  };
}

Predict PredictAsServed(const ServedModel& model) {
  return [&model](absl::Span<const int32_t> sequence, int64_t top) {
    const std::vector<float> hidden = model.Hidden(sequence);
    const int64_t width = model.config().hidden;
    const int64_t count = static_cast<int64_t>(sequence.size()) - 1;
    std::vector<at::Tensor> ids, logprobs;
    for (int64_t start = 0; start < count; start += kHeadChunk) {
      const int64_t rows = std::min(kHeadChunk, count - start);
      const at::Tensor logits =
          at::empty({rows, model.config().vocab_size}, at::kFloat);
      model.Logits(absl::MakeConstSpan(hidden).subspan(
                       static_cast<size_t>(start * width),
                       static_cast<size_t>(rows * width)),
                   logits.mutable_data_ptr<float>());
      const TopLogprobs scores = TopOfLogits(logits, top);
      ids.push_back(scores.ids);
      logprobs.push_back(scores.logprobs);
    }
    return TopLogprobs{at::cat(ids), at::cat(logprobs)};
  };
}

absl::Status WriteProbe(const Predict& predict, int64_t vocab,
                        absl::Span<const std::vector<int32_t>> sequences,
                        const std::string& path,
                        const std::function<bool(int64_t)>& progress) {
  const c10::NoGradGuard no_grad;
  const int64_t top = std::min(kProbeTop, vocab);
  std::vector<int32_t> tokens, starts = {0};
  std::vector<at::Tensor> ids, logprobs;
  for (const std::vector<int32_t>& sequence : sequences) {
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    starts.push_back(static_cast<int32_t>(tokens.size()));
    if (sequence.size() > 1) {
      const TopLogprobs scores = predict(sequence, top);
      ids.push_back(scores.ids);
      logprobs.push_back(scores.logprobs);
    }
    if (!progress(static_cast<int64_t>(starts.size()) - 1)) {
      return absl::CancelledError("tuning was cancelled");
    }
  }
  TensorFileWriter writer;
  RETURN_IF_ERROR(writer.Add("token_ids", at::tensor(tokens, at::kInt)));
  RETURN_IF_ERROR(writer.Add("sequence_starts", at::tensor(starts, at::kInt)));
  RETURN_IF_ERROR(writer.Add("top_ids", at::cat(ids)));
  RETURN_IF_ERROR(writer.Add("top_logprobs", at::cat(logprobs)));
  writer.SetMetadata({{"format", "onegrid.probe.v1"}});
  return writer.WriteTo(path);
}

}  // namespace onegrid::finetuner
