// What a fold's realm is before its code: JavaScript without clock, chance, waiting, code from text
// and language settings; then everything that there is, frozen. A function of the meter's `walks`.
((walks) => {
  "use strict";
  const { defineProperty, freeze, getOwnPropertyDescriptor, getOwnPropertyNames, getPrototypeOf } =
    Object;
  const { ownKeys, apply, construct } = Reflect;
  const hidden = (object, name, value) =>
    defineProperty(object, name, { value, writable: true, enumerable: false, configurable: true });

  // Iterators and functions that have no name, by example: their prototypes are frozen too.
  const unnamed = [
    function* () {},
    (function* () {})(),
    async function () {},
    async function* () {},
    (async function* () {})(),
    [][Symbol.iterator](),
    ""[Symbol.iterator](),
    "a".matchAll(/a/g),
    new Map().entries(),
    new Set().values(),
    [].values().map((value) => value),
    Iterator.from({ next() {} }),
    Iterator.concat?.([]),
    (function () {
      return arguments;
    })(),
  ];

  // Time is in the rows. What the machine takes for local time is UTC.
  const Native = Date;
  const iso =
    /^([+-]\d{6}|\d{4})(-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?)?)?$/;
  const parse = (text) => {
    const parts = iso.exec(String(text));
    if (parts === null) return NaN;
    let [whole, , , , time, , , zone, minutes] = parts;
    whole = whole.replace(" ", "T");
    if (time !== undefined && zone === undefined) whole += "Z";
    else if (zone !== undefined && zone !== "Z") {
      const hours = zone.slice(0, 3);
      const rest = minutes === undefined ? "00" : minutes.replace(":", "");
      whole = whole.slice(0, whole.length - zone.length) + hours + ":" + rest;
    }
    return Native.parse(whole);
  };
  const time = Native.prototype.getTime;
  function FoldDate(...args) {
    if (new.target === undefined || args.length === 0) {
      throw new TypeError("a fold has no clock, on purpose: new Date() needs a time, such as a row's");
    }
    let value = args[0];
    if (args.length > 1) value = Native.UTC(...args);
    else if (value instanceof FoldDate) value = time.call(value);
    else if (typeof value === "string") value = parse(value);
    return construct(Native, [Number(value)], new.target);
  }
  const dates = Native.prototype;
  hidden(FoldDate, "UTC", Native.UTC);
  hidden(FoldDate, "parse", parse);
  hidden(FoldDate, "now", () => {
    throw new TypeError("a fold has no clock, on purpose: time is in its rows");
  });
  defineProperty(FoldDate, "name", { value: "Date" });
  defineProperty(FoldDate, "prototype", { value: dates, writable: false });
  hidden(dates, "constructor", FoldDate);
  for (const part of "Date Day FullYear Hours Milliseconds Minutes Month Seconds".split(" ")) {
    hidden(dates, "get" + part, dates["getUTC" + part]);
    if (dates["setUTC" + part]) hidden(dates, "set" + part, dates["setUTC" + part]);
  }
  hidden(dates, "getTimezoneOffset", () => 0);
  hidden(dates, "toString", dates.toUTCString);
  for (const name of ["toDateString", "toTimeString", "getYear", "setYear"]) delete dates[name];
  hidden(globalThis, "Date", FoldDate);

  hidden(Math, "random", () => {
    throw new TypeError("a fold has no randomness, on purpose: its rows give the same every time");
  });
  delete Error.prepareStackTrace;
  delete Error.stackTraceLimit;
  for (const name of [
    "eval", "Function", "Promise", "queueMicrotask", "SharedArrayBuffer", "Atomics", "WeakRef",
    "FinalizationRegistry", "performance", "Intl",
  ]) {
    delete globalThis[name];
  }
  const noText = function () {
    throw new TypeError("a fold makes no code of text");
  };
  for (const made of [function () {}, ...unnamed.slice(0, 4).filter((f) => typeof f === "function")]) {
    hidden(getPrototypeOf(made), "constructor", noText);
  }

  // One call of a built-in function is one step: what is long counts for its length too. A search may
  // compare what it looks for at each place. Code that is to be stopped turns until the engine asks.
  const LONG = 4096;
  const COMPARED = 64;
  const { isArray } = Array;
  const { isView } = ArrayBuffer;
  const counted = (home, searches, names) => {
    for (const name of names.split(" ")) {
      const native = home[name];
      const own = {
        [name](...args) {
          const length = typeof this === "string" || isArray(this) || isView(this) ? this.length : 0;
          if (length >= LONG) {
            const sought = searches && typeof args[0] === "string" ? args[0].length : 0;
            const places = sought < length ? length - sought : 0;
            if (walks(length + places * (sought / COMPARED))) for (;;) ;
          }
          return apply(native, this, args);
        },
      }[name];
      defineProperty(own, "length", { value: native.length });
      hidden(home, name, own);
    }
  };
  const texts = String.prototype;
  counted(texts, true, "includes indexOf lastIndexOf replace replaceAll split");
  counted(texts, false, "endsWith isWellFormed startsWith toWellFormed trim trimEnd trimStart");
  hidden(texts, "trimLeft", texts.trimStart);
  hidden(texts, "trimRight", texts.trimEnd);
  counted(
    Array.prototype,
    false,
    "copyWithin fill includes indexOf join lastIndexOf reverse shift splice unshift",
  );
  counted(
    getPrototypeOf(Uint8Array.prototype),
    false,
    "copyWithin fill includes indexOf join lastIndexOf reverse set sort",
  );

  // Everything that there is. On the way what depends on a language goes.
  const all = new Set();
  const queue = [globalThis, ...unnamed];
  while (queue.length > 0) {
    const object = queue.pop();
    if ((typeof object !== "object" || object === null) && typeof object !== "function") continue;
    if (all.has(object)) continue;
    all.add(object);
    queue.push(getPrototypeOf(object));
    for (const key of ownKeys(object)) {
      if (typeof key === "string" && (key.startsWith("toLocale") || key === "localeCompare")) {
        delete object[key];
        continue;
      }
      const property = getOwnPropertyDescriptor(object, key);
      queue.push(property.value, property.get, property.set);
    }
  }

  // An object may have a property of its own where its frozen prototype has one.
  const yields = (home, name) => {
    const property = getOwnPropertyDescriptor(home, name);
    if (property === undefined || !property.configurable || !("value" in property)) return;
    const { value, enumerable } = property;
    const accessors = {
      get() {
        return value;
      },
      set(own) {
        if (this === home) throw new TypeError("'" + name + "' is read-only");
        defineProperty(this, name, {
          value: own, writable: true, enumerable: true, configurable: true,
        });
      },
    };
    all.add(accessors.get).add(accessors.set);
    defineProperty(home, name, { ...accessors, enumerable, configurable: false });
  };
  for (const name of getOwnPropertyNames(Object.prototype)) yields(Object.prototype, name);
  for (const name of getOwnPropertyNames(globalThis)) {
    const prototype = globalThis[name]?.prototype;
    if (prototype !== Error.prototype && !(prototype instanceof Error)) continue;
    for (const property of ["name", "message", "toString"]) yields(prototype, property);
  }

  all.forEach((object) => freeze(object));
});
