// How sure a model was of the tokens of an answer.
#ifndef SERVICES_GATEWAY_CONFIDENCE_H_
#define SERVICES_GATEWAY_CONFIDENCE_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace onegrid::gateway {

// Thread-compatible.
class Confidence {
 public:
  // The log-probability of another token.
  void Add(double logprob) {
    ++tokens_;
    sum_ += logprob;
    min_ = std::min(min_, logprob);
  }
  // Of all tokens so far. Of an answer without any nothing is sure.
  double mean() const {
    return tokens_ > 0 ? sum_ / static_cast<double>(tokens_) : kNone;
  }
  double min() const { return tokens_ > 0 ? min_ : kNone; }

 private:
  static constexpr double kNone = -std::numeric_limits<double>::infinity();

  int64_t tokens_ = 0;
  double sum_ = 0;
  double min_ = std::numeric_limits<double>::infinity();
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_CONFIDENCE_H_
