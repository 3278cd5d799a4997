use super::*;

/// Shewchuk's expansion, as Python's fsum: another way to the correctly rounded sum.
fn fsum(values: &[f64]) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for &value in values {
        let mut x = value;
        let mut kept = Vec::new();
        for &partial in &partials {
            let (big, small) = if x.abs() < partial.abs() { (partial, x) } else { (x, partial) };
            let high = big + small;
            let low = small - (high - big);
            if low != 0.0 {
                kept.push(low);
            }
            x = high;
        }
        kept.push(x);
        partials = kept;
    }
    let mut sum = partials.pop().unwrap_or(0.0);
    let mut low = 0.0;
    while let Some(next) = partials.pop() {
        let x = sum;
        sum = x + next;
        low = next - (sum - x);
        if low != 0.0 {
            break;
        }
    }
    // Half an ulp on the same side as what is left decides the tie.
    if let Some(&next) = partials.last()
        && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
    {
        let twice = low * 2.0;
        let x = sum + twice;
        if twice == x - sum {
            sum = x;
        }
    }
    sum + 0.0
}

fn random_float(rng: &mut fastrand::Rng, wide: bool) -> f64 {
    let sign = if rng.bool() { 1.0 } else { -1.0 };
    let exponent = if wide { rng.i32(-300..280) } else { rng.i32(-20..40) };
    sign * (1.0 + rng.f64()) * 2f64.powi(exponent)
}

#[test]
fn float_sums_are_rounded_once_and_forget_what_is_taken_away() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let wide = seed % 2 == 0;
        let count = rng.usize(1..60);
        let mut values: Vec<f64> = (0..count).map(|_| random_float(&mut rng, wide)).collect();
        if rng.bool() {
            // Near cancellation shows what lies below.
            let negated: Vec<f64> = values[1..].iter().map(|value| -value).collect();
            values.extend(negated);
        }
        let extra: Vec<f64> = (0..rng.usize(0..30)).map(|_| random_float(&mut rng, true)).collect();
        let mut changes: Vec<(f64, i64)> = values.iter().map(|&value| (value, 1)).collect();
        changes.extend(extra.iter().flat_map(|&value| [(value, 1), (value, -1)]));
        rng.shuffle(&mut changes);
        let (mut sum, mut other) = (ExactFloatSum::default(), ExactFloatSum::default());
        for &(value, weight) in &changes {
            if rng.bool() { &mut sum } else { &mut other }.add(value, weight);
        }
        sum.merge(&other);
        let (got, expected) = (sum.sum().unwrap(), fsum(&values));
        assert_eq!(got.to_bits(), expected.to_bits(), "seed {seed}: {got:e} {expected:e}");
        let average = sum.average(3);
        assert_eq!(average.to_bits(), (expected / 3.0).to_bits(), "seed {seed}");
    }
}

#[test]
fn weights_stand_for_repetition() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..200 {
        let (mut weighted, mut repeated) = (ExactFloatSum::default(), ExactFloatSum::default());
        for _ in 0..5 {
            let (value, weight) = (random_float(&mut rng, true), rng.i64(1..20));
            weighted.add(value, weight);
            (0..weight).for_each(|_| repeated.add(value, 1));
        }
        assert_eq!(weighted.sum(), repeated.sum());
    }
}

#[test]
fn the_ends_of_the_float_range_hold() {
    let mut sum = ExactFloatSum::default();
    sum.add(f64::MAX, 1);
    sum.add(f64::MAX, 1);
    assert_eq!(sum.sum(), Err(OutOfRange));
    assert_eq!(sum.average(2), f64::MAX);
    sum.add(5e-324, 1);
    sum.add(f64::MAX, -2);
    assert_eq!(sum.sum(), Ok(5e-324));
    sum.add(-5e-324, 1);
    assert_eq!(sum.sum().unwrap().to_bits(), 0.0_f64.to_bits());
    sum.add(-0.0, 1);
    assert_eq!(sum.sum().unwrap().to_bits(), 0.0_f64.to_bits());
    for _ in 0..1000 {
        sum.add(f64::MIN, 1_000_000);
    }
    assert_eq!(sum.sum(), Err(OutOfRange));
    for _ in 0..1000 {
        sum.add(f64::MIN, -1_000_000);
    }
    sum.add(f64::MIN_POSITIVE, 3);
    assert_eq!(sum.sum(), Ok(f64::MIN_POSITIVE * 3.0));
}

#[test]
fn infinities_and_nans_leave_again() {
    let mut sum = ExactFloatSum::default();
    sum.add(1.5, 1);
    sum.add(f64::INFINITY, 2);
    assert_eq!(sum.sum(), Ok(f64::INFINITY));
    sum.add(f64::NEG_INFINITY, 1);
    assert!(sum.sum().unwrap().is_nan());
    sum.add(f64::INFINITY, -2);
    assert_eq!(sum.average(2), f64::NEG_INFINITY);
    sum.add(f64::NAN, 1);
    assert!(sum.sum().unwrap().is_nan());
    sum.add(f64::NAN, -1);
    sum.add(f64::NEG_INFINITY, -1);
    assert_eq!(sum.sum(), Ok(1.5));
}

#[test]
fn integer_sums_pass_128_bits_and_come_back() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sum = ExactIntegerSum::default();
        let mut model = i256::ZERO;
        let mut added = Vec::new();
        for _ in 0..rng.usize(1..50) {
            let value = rng.i128(i128::MIN..=i128::MAX) >> rng.u32(0..127);
            let weight = if rng.bool() { rng.i64(-3..4) } else { rng.i64(..) };
            sum.add(value, weight);
            added.push((value, weight));
            let product = i256::from_i128(value) * i256::from_i128(weight.into());
            model += product;
            assert_eq!(sum.to_i256(), model, "seed {seed}");
            let fits = model.to_i128().filter(|v| v.unsigned_abs() < 10_u128.pow(38));
            assert_eq!(sum.sum().ok(), fits, "seed {seed}");
        }
        let mut other = ExactIntegerSum::default();
        added.iter().for_each(|&(value, weight)| other.add(value, weight.wrapping_neg()));
        if added.iter().all(|&(_, weight)| weight != i64::MIN) {
            sum.merge(&other);
            assert_eq!(sum, ExactIntegerSum::default(), "seed {seed}");
        }
    }
}

#[test]
fn decimal_averages_round_half_away_from_zero() {
    let average = |values: &[i128], scale_more| {
        let mut sum = ExactIntegerSum::default();
        values.iter().for_each(|&value| sum.add(value, 1));
        sum.average_decimal(values.len() as i64, scale_more)
    };
    assert_eq!(average(&[1, 2], 0), Ok(2));
    assert_eq!(average(&[-1, -2], 0), Ok(-2));
    assert_eq!(average(&[1, 1, 2], 0), Ok(1));
    assert_eq!(average(&[1, 1, 2], 4), Ok(13333));
    assert_eq!(average(&[-1, -1, -3], 4), Ok(-16667));
    let large = 10_i128.pow(38) - 1;
    assert_eq!(average(&[large, large, large], 0), Ok(large));
    assert_eq!(average(&[large, large, large], 1), Err(OutOfRange));
}
