module.exports = {
  // nginx in front compresses.
  compress: false,
  poweredByHeader: false,
};
