// The search would need a worker made of text, which the page's policy does not allow.
Redoc.init(
  "openapi.json",
  { disableSearch: true, hideDownloadButton: false },
  document.getElementById("page"),
);
