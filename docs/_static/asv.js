/* Additions to asv's own scripts, which are written for the history of many commits. With a single commit, a plot against
   commits is a lone point and a thumbnail of lines is empty; so plots are against a parameter from the start, with
   logarithmic axes where its numbers are far apart. Loaded after asv.js and before what uses it. */
'use strict';

$(document).ready(function () {
  const several = (values) => values.length > 1;
  const numbers = (values) => several(values) && values.every((value) => Number(value) > 0);
  const single_commit = () => Object.keys($.asv.main_json.revision_to_hash).length === 1;

  /* The index of the parameter to plot against: the first with numbers for values, or else the first; −1 if there is none. */
  function axis_of(benchmark) {
    return benchmark.params.findIndex(benchmark.params.some(numbers) ? numbers : several);
  }

  /* A logarithmic axis that is marked at the given numbers, if the largest is many times the smallest. */
  function logarithmic(values) {
    const positive = values.filter((value) => value > 0);
    const spread = Math.max(...positive) / Math.min(...positive);
    if (!(spread >= 8) || positive.length < values.length) return {};
    return {transform: Math.log, inverseTransform: Math.exp, ticks: [...new Set(positive)].sort((a, b) => a - b)};
  }

  /* The state that a plot begins with, unless the address says otherwise; written into the address. */
  function begin(params) {
    const benchmark = $.asv.main_json.benchmarks[params.benchmark];
    if (!single_commit() || !benchmark || Object.keys(params).length > 1) return;
    const axis = axis_of(benchmark);
    if (axis < 0) return;
    params['x-axis'] = [benchmark.param_names[axis]];
    if (benchmark.type === 'time') params['y-axis-scale'] = ['log'];
    benchmark.param_names.forEach(function (name, i) {
      /* asv counts the values on the axis as curves when it decides how many curves to show. */
      params['p-' + name] = i === axis ? benchmark.params[i].slice(0, 1) : benchmark.params[i];
    });
    const {benchmark: location, ...state} = params;
    window.history.replaceState(null, '', $.asv.format_hash_string({location, params: state}));
  }

  /* The curves of a benchmark over a parameter, one for each combination of the others. */
  function curves(benchmark, values, axis) {
    const stride = benchmark.params.slice(axis + 1).reduce((product, other) => product * other.length, 1);
    const found = {};
    values.forEach(function (value, flat) {
      const position = Math.floor(flat / stride) % benchmark.params[axis].length;
      const text = benchmark.params[axis][position];
      const others = flat - position * stride;
      (found[others] ||= []).push([numbers(benchmark.params[axis]) ? Number(text) : position, value]);
    });
    return Object.values(found).filter((points) => points.some((point) => point[1] !== null)).map((data) => ({data}));
  }

  const plot = $.plot;
  const with_points = (series) => ({...series, points: {show: true, radius: 2}});
  $.plot = Object.assign(function (placeholder, data, options) {
    const name = (placeholder.attr('id') || '').match(/^summarygrid-(.*)$/);
    const benchmark = name && $.asv.main_json.benchmarks[name[1]];
    if (benchmark && single_commit()) {
      const axis = axis_of(benchmark);
      const path = $.asv.graph_to_path(benchmark.name, $.asv.main_json.graph_param_list[0]);
      $.asv.load_graph_data(path).done(function (history) {
        const lines = axis < 0 ? data : curves(benchmark, history[history.length - 1][1], axis);
        const [x, y] = [0, 1].map((i) => lines.flatMap((line) => line.data.map((point) => point[i]).filter((v) => v !== null)));
        const top = Math.max(...y, 0);
        const yaxis = {min: 0, max: 1.2 * top || 1, ...logarithmic(y), ticks: []};
        if (yaxis.transform) Object.assign(yaxis, {min: Math.min(...y) / 1.5, max: 1.5 * top});
        plot(placeholder, lines.map(with_points), {...options, xaxis: {...logarithmic(x), ticks: []}, yaxis});
      });
      return null;
    }
    const against = $.asv.parse_hash_string(window.location.hash).params['x-axis'];
    if (placeholder.attr('id') === 'main-graph' && against && against[0] !== 'commit' && !options.xaxis.mode) {
      const x = data.flatMap((series) => series.data.map((point) => point[0]));
      if (x.every((value) => typeof value === 'number')) Object.assign(options.xaxis, logarithmic(x));
    }
    if (options.xaxis && options.xaxis.mode === 'categories') {
      /* Bars begin at zero, which a logarithmic axis does not have, and those of many curves hide each other. */
      options = {...options, series: {lines: {show: true, lineWidth: 1}, points: {show: true}, shadowSize: 0}};
      data = data.map(({bars, ...series}) => series);
    }
    const lone = (series) => series.data && series.data.length === 1 && !series.points;
    return plot(placeholder, data.map((series) => (lone(series) ? with_points(series) : series)), options);
  }, plot);

  const register = $.asv.register_page;
  $.asv.register_page = function (name, show) {
    const shown = (params) => {
      begin(params);
      show(params);
    };
    register.call($.asv, name, name === 'graphdisplay' ? shown : show);
  };
});
