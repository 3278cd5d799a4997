//! Covariances, correlations and regressions of pairs of floats.
//!
//! After E. A. Youngs and E. M. Cramer, "Some Results Relevant to Choice of Sum and Sum-of-Product
//! Algorithms", as Postgres computes them: what cannot be said of infinities and of NaN is NaN, and
//! a sum past the greatest float is an error.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::Accumulator;
use datafusion::scalar::ScalarValue;

use super::rows::external;
use crate::SqlError;
use crate::error::NUMERIC_OUT_OF_RANGE;

/// What is asked of the pairs: the dependent `y` comes first, as in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    CovariancePopulation,
    CovarianceSample,
    Correlation,
    Count,
    AverageX,
    AverageY,
    SquaresX,
    SquaresY,
    Products,
    Slope,
    Intercept,
    Determination,
}

impl Asked {
    /// What the function of a name asks.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "covar_pop" => Self::CovariancePopulation,
            "covar_samp" => Self::CovarianceSample,
            "corr" => Self::Correlation,
            "regr_count" => Self::Count,
            "regr_avgx" => Self::AverageX,
            "regr_avgy" => Self::AverageY,
            "regr_sxx" => Self::SquaresX,
            "regr_syy" => Self::SquaresY,
            "regr_sxy" => Self::Products,
            "regr_slope" => Self::Slope,
            "regr_intercept" => Self::Intercept,
            "regr_r2" => Self::Determination,
            _ => return None,
        })
    }

    pub(super) fn return_type(self) -> DataType {
        if self == Self::Count { DataType::Int64 } else { DataType::Float64 }
    }
}

/// One variable: its sum, and the sum of the squares of its distances from the mean.
#[derive(Clone, Copy, Debug, Default)]
struct Variable {
    sum: f64,
    squares: f64,
}

/// What the pairs so far come to.
#[derive(Debug)]
pub(super) struct Pairs {
    asked: Asked,
    count: i64,
    x: Variable,
    y: Variable,
    products: f64,
}

impl Pairs {
    pub(super) fn new(asked: Asked) -> Self {
        let (x, y) = (Variable::default(), Variable::default());
        Self { asked, count: 0, x, y, products: 0.0 }
    }

    fn add(&mut self, y: f64, x: f64) -> Result<()> {
        let before = (self.x.sum, self.y.sum);
        self.count += 1;
        self.x.sum += x;
        self.y.sum += y;
        if self.count == 1 {
            let unless_finite = |value: f64| if value.is_finite() { 0.0 } else { f64::NAN };
            self.x.squares = unless_finite(x);
            self.y.squares = unless_finite(y);
            self.products = self.x.squares + self.y.squares;
            return Ok(());
        }
        let n = self.count as f64;
        let (far_x, far_y) = (x * n - self.x.sum, y * n - self.y.sum);
        let scale = 1.0 / (n * (n - 1.0));
        self.x.squares += far_x * far_x * scale;
        self.y.squares += far_y * far_y * scale;
        self.products += far_x * far_y * scale;

        let (given_x, given_y) =
            (before.0.is_infinite() || x.is_infinite(), before.1.is_infinite() || y.is_infinite());
        let is_past =
            |variable: Variable| variable.sum.is_infinite() || variable.squares.is_infinite();
        let past_x = is_past(self.x) && !given_x;
        let past_y = is_past(self.y) && !given_y;
        let past = self.products.is_infinite() && !given_x && !given_y;
        if past_x || past_y || past {
            let message = "value out of range: overflow";
            return Err(external(SqlError::new(NUMERIC_OUT_OF_RANGE, message)));
        }
        for sum in [&mut self.x.squares, &mut self.y.squares, &mut self.products] {
            if sum.is_infinite() {
                *sum = f64::NAN;
            }
        }
        Ok(())
    }

    /// The answer, if there is one to so few pairs, or to pairs that do not vary.
    fn answer(&self) -> Option<f64> {
        let n = self.count as f64;
        let (x, y) = (self.x, self.y);
        if self.count < 1 {
            return None;
        }
        Some(match self.asked {
            Asked::CovarianceSample if self.count < 2 => return None,
            Asked::Correlation if x.squares == 0.0 || y.squares == 0.0 => return None,
            Asked::Slope | Asked::Intercept | Asked::Determination if x.squares == 0.0 => {
                return None;
            }
            Asked::CovariancePopulation => self.products / n,
            Asked::CovarianceSample => self.products / (n - 1.0),
            Asked::Correlation => self.products / (x.squares * y.squares).sqrt(),
            Asked::Count => n,
            Asked::AverageX => x.sum / n,
            Asked::AverageY => y.sum / n,
            Asked::SquaresX => x.squares,
            Asked::SquaresY => y.squares,
            Asked::Products => self.products,
            Asked::Slope => self.products / x.squares,
            Asked::Intercept => (y.sum - x.sum * self.products / x.squares) / n,
            Asked::Determination if y.squares == 0.0 => 1.0,
            Asked::Determination => self.products * self.products / (x.squares * y.squares),
        })
    }
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (y, x) = (cast(&values[0], &DataType::Float64)?, cast(&values[1], &DataType::Float64)?);
        let pairs = y.as_primitive::<Float64Type>().iter().zip(x.as_primitive::<Float64Type>());
        for pair in pairs {
            if let (Some(y), Some(x)) = pair {
                self.add(y, x)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.asked {
            Asked::Count => ScalarValue::Int64(Some(self.count)),
            _ => ScalarValue::Float64(self.answer()),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("pairs are gathered before they are added up")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("pairs are gathered before they are added up")
    }
}
