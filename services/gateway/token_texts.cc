#include "services/gateway/token_texts.h"

#include <algorithm>
#include <utility>

#include "services/model/utf8.h"

namespace onegrid::gateway {

TokenTexts::TokenTexts(v1::Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), is_control_(size(), false) {
  for (const int32_t id : vocabulary_.control_ids()) {
    if (id >= 0 && id < size()) is_control_[id] = true;
  }
}

TokenText TokenTexts::Of(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  return {vocabulary_.texts(id), is_control_[id]};
}

std::string TokenTexts::Decode(absl::Span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    const TokenText token = Of(id);
    if (!token.control) text += token.bytes;
  }
  return model::ReplaceInvalidUtf8(text);
}

GeneratedToken TokenPlaces::Next(const ScoredToken& token) {
  GeneratedToken generated;
  generated.token = texts_.Of(token.id);
  if (token.logprob.has_value()) generated.logprob = *token.logprob;
  const size_t top = std::min(token.top_ids.size(), token.top_logprobs.size());
  for (size_t i = 0; i < top; ++i) {
    generated.top.push_back(
        {texts_.Of(token.top_ids[i]), token.top_logprobs[i]});
  }
  const std::string& bytes = generated.token.bytes;
  const bool within = !bytes.empty() && (bytes[0] & 0xC0) == 0x80;
  generated.text_offset = characters_ - (within && characters_ > 0 ? 1 : 0);
  if (!generated.token.control) characters_ += CharacterCount(bytes);
  return generated;
}

}  // namespace onegrid::gateway
