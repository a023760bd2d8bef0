-- Configuration for `vim.lsp.enable('c2l')`, which works without the plugin's renderer (Neovim 0.11 and newer).
return require('c2l.launch').spec()
