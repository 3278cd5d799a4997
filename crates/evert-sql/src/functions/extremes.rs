//! `min` and `max` with Postgres's order of floats and arrays: NaN is greater than any number, and a
//! NULL element than any other.
//!
//! DataFusion's own pass NaN over, and in frames that move they keep a value that has gone; for
//! groups of every other type they are right and are used.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature,
};
use datafusion::scalar::ScalarValue;

use super::floats::formed;
use super::lists::is_list;

/// `min` or `max`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    greatest: bool,
    inner: Arc<AggregateUDF>,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let make = |greatest, inner| Arc::new(AggregateUDF::from(Extreme { greatest, inner }));
    vec![make(false, min_udaf()), make(true, max_udaf())]
});

/// `min` and `max`.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let ty = args.return_field.data_type().clone();
        if is_list(&ty) {
            let converter = converter(&ty)?;
            return Ok(Box::new(Lists { greatest: self.greatest, ty, converter, best: None }));
        }
        if !ty.is_floating() {
            return self.inner.accumulator(args);
        }
        Ok(Box::new(Floats { greatest: self.greatest, ty, best: None }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let ty = args.return_field.data_type().clone();
        let converter = converter(&ty)?;
        let (greatest, counts) = (self.greatest, BTreeMap::new());
        Ok(Box::new(Sliding { greatest, ty, converter, counts }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let ty = args.return_field.data_type();
        !ty.is_floating() && !is_list(ty) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }
}

/// Values as bytes in their order. NULL elements of arrays come last.
fn converter(ty: &DataType) -> Result<RowConverter> {
    let options = SortOptions { descending: false, nulls_first: false };
    Ok(RowConverter::new(vec![SortField::new_with_options(ty.clone(), options)])?)
}

/// A value of a type from its bytes.
fn value_of(converter: &RowConverter, bytes: &[u8]) -> Result<ScalarValue> {
    let parser = converter.parser();
    let column = converter.convert_rows([parser.parse(bytes)])?.swap_remove(0);
    ScalarValue::try_from_array(&column, 0)
}

/// Floats with one zero and one NaN, so that the order of rows does not show.
fn canonical(values: &ArrayRef) -> Result<Float64Array> {
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    Ok(values.unary(|value| if value.is_nan() { f64::NAN } else { value + 0.0 }))
}

/// The least or greatest value of a frame that moves. DataFusion's own keeps the last one when the
/// frame has none left.
#[derive(Debug)]
struct Sliding {
    greatest: bool,
    ty: DataType,
    converter: RowConverter,
    /// How often each value, as the bytes that order it, is in the frame.
    counts: Counts,
}

impl Sliding {
    fn each(&mut self, values: &ArrayRef, mut act: impl FnMut(&mut Counts, &[u8])) -> Result<()> {
        let values = formed(values);
        let rows = self.converter.convert_columns(std::slice::from_ref(&values))?;
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            act(&mut self.counts, rows.row(row).data());
        }
        Ok(())
    }
}

type Counts = BTreeMap<Box<[u8]>, usize>;

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], |counts, value| *counts.entry(value.into()).or_default() += 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], |counts, value| {
            if let Entry::Occupied(mut count) = counts.entry(value.into()) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let best = match self.greatest {
            true => self.counts.last_key_value(),
            false => self.counts.first_key_value(),
        };
        let Some((bytes, _)) = best else { return ScalarValue::try_from(&self.ty) };
        value_of(&self.converter, bytes)
    }

    fn size(&self) -> usize {
        let bytes: usize = self.counts.keys().map(|value| value.len()).sum();
        size_of_val(self) + bytes + self.counts.len() * 4 * size_of::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The least or greatest array so far.
#[derive(Debug)]
struct Lists {
    greatest: bool,
    ty: DataType,
    converter: RowConverter,
    best: Option<Box<[u8]>>,
}

impl Accumulator for Lists {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = formed(&values[0]);
        let rows = self.converter.convert_columns(std::slice::from_ref(&values))?;
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let bytes = rows.row(row).data();
            let better = self.best.as_deref().is_none_or(|best| match self.greatest {
                true => bytes > best,
                false => bytes < best,
            });
            if better {
                self.best = Some(bytes.into());
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.best {
            Some(bytes) => value_of(&self.converter, bytes),
            None => ScalarValue::try_from(&self.ty),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.best.as_ref().map_or(0, |best| best.len())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The least or greatest float so far.
#[derive(Debug)]
struct Floats {
    greatest: bool,
    ty: DataType,
    best: Option<f64>,
}

impl Accumulator for Floats {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in canonical(&values[0])?.iter().flatten() {
            let better = self.best.is_none_or(|best| {
                let order = value.total_cmp(&best);
                if self.greatest { order.is_gt() } else { order.is_lt() }
            });
            if better {
                self.best = Some(value);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::Float64(self.best).cast_to(&self.ty)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
