// Numbers as Python prints them, which is how Jinja does.
#ifndef SERVICES_MODEL_PYTHON_NUMBER_H_
#define SERVICES_MODEL_PYTHON_NUMBER_H_

#include <string>

namespace onegrid::model {

// repr() of a finite float: the fewest digits that read as the same value, with
// an exponent below 1e-4 and from 1e16 on.
std::string PythonFloat(double value);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_PYTHON_NUMBER_H_
