// The texts of a served model's tokens, and tokens as answers show them.
#ifndef SERVICES_GATEWAY_TOKEN_TEXTS_H_
#define SERVICES_GATEWAY_TOKEN_TEXTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "proto/onegrid/v1/vocabulary.pb.h"
#include "services/gateway/openai_response.h"

namespace onegrid::gateway {

// Thread-safe.
class TokenTexts {
 public:
  explicit TokenTexts(v1::Vocabulary vocabulary);

  const std::string& artifact_sha256() const {
    return vocabulary_.artifact_sha256();
  }
  int32_t size() const { return vocabulary_.texts_size(); }

  // Ids out of range have no bytes.
  TokenText Of(int32_t id) const;

  // The text of `ids`, without control tokens; bytes that are part of no
  // character become U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids) const;

 private:
  v1::Vocabulary vocabulary_;
  std::vector<bool> is_control_;  // by id
};

// One token with what the model thought in its place, as a backend says it.
struct ScoredToken {
  int32_t id = 0;
  std::optional<float> logprob;  // none of a prompt's first token
  absl::Span<const int32_t> top_ids;
  absl::Span<const float> top_logprobs;
};

// Finds the places in a text of the tokens that make it up, in order. A token
// that begins within a character is where that character is; control tokens
// take no room. Thread-compatible.
class TokenPlaces {
 public:
  // `texts` must outlive this. characters: of the text before the first token.
  explicit TokenPlaces(const TokenTexts& texts, int64_t characters = 0)
      : texts_(texts), characters_(characters) {}

  GeneratedToken Next(const ScoredToken& token);

 private:
  const TokenTexts& texts_;
  int64_t characters_;  // that began before the next token
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_TOKEN_TEXTS_H_
