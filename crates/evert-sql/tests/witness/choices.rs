//! Choices: the source of all that a case draws at random, recorded so that it can be shrunk.
//!
//! A generator asks for numbers below a bound, and makes the simplest thing of a zero. So a case
//! is its list of numbers: a shorter or smaller list is a simpler case, whatever the generator is.

/// Numbers, drawn afresh or played again.
pub(crate) struct Choices {
    random: Option<fastrand::Rng>,
    taken: Vec<u32>,
    next: usize,
}

impl Choices {
    /// New ones from a seed.
    pub(crate) fn random(seed: u64) -> Self {
        Self { random: Some(fastrand::Rng::with_seed(seed)), taken: Vec::new(), next: 0 }
    }

    /// Those that were taken before; zeros when they run out.
    pub(crate) fn replay(taken: Vec<u32>) -> Self {
        Self { random: None, taken, next: 0 }
    }

    /// What was drawn or played so far.
    pub(crate) fn taken(mut self) -> Vec<u32> {
        self.taken.truncate(self.next);
        self.taken
    }

    /// A number below `bound`, which is above zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u32::try_from(bound).expect("small bounds");
        let number = match &mut self.random {
            Some(random) => {
                let number = random.u32(0..bound);
                self.taken.push(number);
                number
            }
            None => self.taken.get(self.next).map_or(0, |number| (*number).min(bound - 1)),
        };
        self.next += 1;
        number as usize
    }

    /// One of several, the simplest first.
    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) + 1 == n
    }

    /// True `n` times of a hundred.
    pub(crate) fn percent(&mut self, n: usize) -> bool {
        self.below(100) + n >= 100
    }

    /// One of several by weight, the simplest first.
    pub(crate) fn weighted<T: Clone>(&mut self, from: &[(usize, T)]) -> T {
        let mut number = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in from {
            match number.checked_sub(*weight) {
                Some(left) => number = left,
                None => return one.clone(),
            }
        }
        unreachable!("the number is below the weights' sum")
    }
}

/// The simplest list that still fails, as far as `tries` attempts go.
pub(crate) fn shrink(
    mut best: Vec<u32>,
    mut tries: usize,
    fails: &mut dyn FnMut(&[u32]) -> bool,
) -> Vec<u32> {
    let mut attempt = |candidate: Vec<u32>, best: &mut Vec<u32>, tries: &mut usize| {
        if *tries == 0 || candidate == *best {
            return false;
        }
        *tries -= 1;
        let fails = fails(&candidate);
        if fails {
            *best = candidate;
        }
        fails
    };
    loop {
        let before = best.clone();
        let mut chunk = best.len().next_power_of_two().max(1);
        while chunk > 0 {
            let mut from = best.len().saturating_sub(chunk);
            loop {
                let until = (from + chunk).min(best.len());
                let mut without = best.clone();
                without.drain(from..until);
                if !attempt(without, &mut best, &mut tries) {
                    let mut zeroed = best.clone();
                    zeroed[from..until].fill(0);
                    attempt(zeroed, &mut best, &mut tries);
                }
                if from == 0 {
                    break;
                }
                from = from.saturating_sub(chunk).min(best.len());
            }
            chunk /= 2;
        }
        for at in 0..best.len() {
            for smaller in [best[at] / 2, best[at].saturating_sub(1)] {
                let mut candidate = best.clone();
                candidate[at] = smaller;
                attempt(candidate, &mut best, &mut tries);
            }
        }
        if best == before || tries == 0 {
            return best;
        }
    }
}

#[test]
fn a_list_shrinks_to_what_makes_it_fail() {
    let mut random = Choices::random(3);
    for _ in 0..200 {
        random.below(50);
    }
    let list = random.taken();
    let mut fails = |list: &[u32]| {
        let mut choices = Choices::replay(list.to_vec());
        (0..20).any(|_| choices.below(50) > 7)
    };
    assert!(fails(&list));
    assert_eq!(shrink(list, 10_000, &mut fails), [8]);
}

#[test]
fn what_was_taken_plays_again() {
    let mut first = Choices::random(9);
    let drawn: Vec<_> = (1..50).map(|bound| first.below(bound)).collect();
    let mut again = Choices::replay(first.taken());
    assert_eq!((1..50).map(|bound| again.below(bound)).collect::<Vec<_>>(), drawn);
    assert_eq!(again.below(5), 0);
}
