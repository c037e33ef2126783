// What an optimizer step changes: a flat vector of parameters with gradients.
#ifndef SERVICES_FINETUNER_TUNABLE_H_
#define SERVICES_FINETUNER_TUNABLE_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Parameters [begin, end) that learn at `learning_rate_multiplier` times the
// stage's rate.
struct ParameterSpan {
  int64_t begin = 0;
  int64_t end = 0;
  double learning_rate_multiplier = 1;
};

// Sums over the labelled positions of a sequence, in nats.
struct LossSums {
  double cross_entropy = 0;
  double kl = 0;  // Of the teacher to the model; 0 without a teacher.
};

// Not thread-safe.
class Tunable {
 public:
  virtual ~Tunable() = default;

  // [n] float32 each; the trainer changes the first and reads the second.
  virtual const at::Tensor& parameters() const = 0;
  virtual const at::Tensor& gradients() const = 0;
  // Disjoint, ascending, covering all parameters.
  virtual std::vector<ParameterSpan> spans() const = 0;

  // Makes the model compute with the present parameters. Called after every
  // change of them.
  virtual void Refresh() = 0;

  // Runs a sequence through the model and adds the gradients of its weighted
  // loss divided by label_count. `random` is the source of dropout masks.
  virtual LossSums AddGradients(const PackedSequence& sequence,
                                int64_t label_count, at::Generator* random) = 0;

  // What shapes the parameters, in words: a checkpoint of a run with another
  // fingerprint is not resumed.
  virtual std::string Fingerprint() const = 0;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TUNABLE_H_
