/* The form with the settings: built once, then filled from a state, or read into one. */
"use strict";
var convmat = window.convmat || {};

convmat.controls = (() => {
    const { NUMBERS, CHOICES } = convmat.state;

    const LABELS = {
        size: "Input size",
        kernel: "Kernel size",
        stride: "Stride",
        before: "Padding before",
        after: "Padding after",
        dilation: "Dilation",
        output_padding: "output_padding, for Wᵀ y",
        axes: "Axes",
        channels_in: "Input channels",
        channels_out: "Output channels",
        mode: "Padding mode",
        weights: "Kernel",
        values: "What goes in",
        own: "Kernel's numbers",
    };
    const WORDS = {
        counting: { weights: "1, 2, 3, …", values: "0, 1, 2, …" },
        ones: { weights: "ones", values: "ones" },
        triangle: { weights: "triangle: 1, 2, 1" },
        difference: { weights: "difference: −1, 0, 1" },
        own: { weights: "own numbers …" },
        impulse: { values: "a single one" },
    };

    const slider = (name) => {
        const { least, most, slider: end = most } = NUMBERS[name];
        return (
            `<div class="field" data-field="${name}"><label for="set-${name}">${LABELS[name]}</label>` +
            `<output for="set-${name}" id="shown-${name}"></output>` +
            `<input type="range" id="set-${name}" name="${name}" min="${least}" max="${end}" step="1"></div>`
        );
    };

    const twoOf = (name) =>
        `<fieldset class="choice field" data-field="${name}"><legend>${LABELS[name]}</legend>` +
        [1, 2].map((n) => `<label><input type="radio" name="${name}" value="${n}"><span>${n}</span></label>`).join("") +
        "</fieldset>";

    const select = (name) => {
        const options = CHOICES[name].map(
            (value) => `<option value="${value}">${(WORDS[value] || {})[name] || value}</option>`,
        );
        return (
            `<div class="field" data-field="${name}"><label for="set-${name}">${LABELS[name]}</label>` +
            `<select id="set-${name}" name="${name}">${options.join("")}</select></div>`
        );
    };

    const own =
        `<div class="field" data-field="own"><label for="set-own">${LABELS.own}</label>` +
        '<input type="text" id="set-own" name="own" inputmode="text" spellcheck="false"></div>';

    /** Builds the form; `changed` gets the name and the new value of what was changed. */
    function build(form, changed) {
        const sliders = ["size", "kernel", "stride", "before", "after", "dilation", "output_padding"];
        form.innerHTML =
            twoOf("axes") +
            sliders.map(slider).join("") +
            select("mode") +
            twoOf("channels_in") +
            twoOf("channels_out") +
            select("weights") +
            own +
            select("values");
        form.addEventListener("submit", (event) => event.preventDefault());
        form.addEventListener("input", ({ target }) => {
            const { name, value } = target;
            changed(name, name in NUMBERS ? Number(value) : value);
        });
    }

    /** Shows a state in the form. */
    function fill(form, state) {
        for (const name of Object.keys(LABELS)) {
            const field = form.elements[name];
            if (name === "size") field.max = Math.max(NUMBERS.size.slider, state.size);
            if (String(field.value) !== String(state[name])) field.value = String(state[name]);
            const shown = document.getElementById(`shown-${name}`);
            if (shown) shown.textContent = state[name];
        }
        form.elements.output_padding.disabled = !state.transposed;
        form.querySelector("[data-field=output_padding]").classList.toggle("off", !state.transposed);
        form.querySelector("[data-field=own]").hidden = state.weights !== "own";
    }

    return { build, fill };
})();
