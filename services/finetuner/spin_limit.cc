#include "services/finetuner/spin_limit.h"

#include <unistd.h>

#include <cstdlib>

namespace onegrid::finetuner {

void LimitSpinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr ||
      std::getenv("GOMP_SPINCOUNT") != nullptr) {
    return;
  }
  setenv("GOMP_SPINCOUNT", "30000", /*overwrite=*/1);
  execv("/proc/self/exe", argv);
}

}  // namespace onegrid::finetuner
